"""Templates."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from engine.render import TEMPLATES, render
from inventory.choices import EXTERNALS


def test_a_value_that_was_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("firewall.service.j2")


def test_nothing_is_escaped_and_the_last_line_ends() -> None:
    assert b"nft -f /a&b<c>\n" in render("firewall.service.j2", rules="/a&b<c>", title="", table="", wants=())
    assert render("firewall.service.j2", rules="x", title="", table="", wants=()).endswith(b"\n")


def test_every_template_is_read_by_a_role() -> None:
    roles = TEMPLATES.parent.parent / "roles"
    # A template may include another.
    places = [*roles.rglob("*.py"), *TEMPLATES.iterdir()]
    text = "".join(path.read_text() for path in places)
    text += "".join(f'"front-{kind}.conf.j2"' for kind in EXTERNALS)
    assert [path.name for path in TEMPLATES.iterdir() if f'"{path.name}"' not in text] == []
