"""The text of a good site file and of a second host, and the result of loading a changed one."""

from pathlib import Path
from textwrap import indent

from inventory.model import Site
from inventory.site_file import compile_site

FILE = Path("/site/of/ours.yml")
GOOD = """\
hosts:
  hk1:
    domain: hk1.example.org
    region: {id: 900, code: hk, name: Hong Kong}
    certificate: {agree_terms: true}
"""
SECOND = """\
  sg1:
    domain: sg1.example.org
    region: {id: 901, code: sg, name: Singapore}
    certificate: {agree_terms: true}
"""


def compiled(text):
    site = compile_site(text, FILE)
    assert isinstance(site, Site), [str(problem) for problem in site]
    return site


def problems(text):
    found = compile_site(text, FILE)
    assert not isinstance(found, Site)
    return sorted(str(problem) for problem in found)


def host(lines):
    """Return GOOD with these lines in hk1; the first of them is line 6 of the file."""
    return GOOD + indent(lines, "    ") + "\n"
