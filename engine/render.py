"""Text from the templates under files/templates.

A value that a template uses and the caller did not give is an error, never an empty string.
"""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inventory.checkout import CHECKOUT

TEMPLATES = CHECKOUT / "files" / "templates"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: object) -> bytes:
    """Return the template's text in UTF-8.

    Raises jinja2.UndefinedError for a value that was not given.
    """
    return _environment().get_template(template).render(**values).encode()
