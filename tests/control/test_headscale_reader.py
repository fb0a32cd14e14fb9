"""headscale's map files, read strictly: a key that it would skip is refused, with its line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.headscale.reader import BadMap, parse_map

GOOD = """\
regions:
  900:
    regionid: 900
    regioncode: hk
    nodes:
      - name: 900a
        regionid: 900
        hostname: hk1.example.org
        derpport: 443
"""


def complaints(text):
    with pytest.raises(BadMap) as caught:
        parse_map(text)
    return list(caught.value.complaints)


def test_a_file_kept_by_hand():
    regions = parse_map((Path(__file__).parent / "headscale" / "derp.yaml").read_text())
    assert list(regions) == [1, 910]
    assert regions[1] is None
    assert regions[910]["nodes"][0]["hostname"] == "derp.example.com"


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "---\n", "regions:\n", "regions: {}\n", "homeparams: {}\nomitdefaultregions: true\n"],
)
def test_a_file_without_regions(text):
    assert parse_map(text) == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("regioncode: hk", "regioncode: no"),  # text takes any scalar
        ("name: 900a", "name: 12"),
        ("derpport: 443", "derpport: 0"),
        ("derpport: 443", "stunport: -1"),
        ("derpport: 443", "canport80: yes"),  # yaml.v3 takes YAML 1.1's words for a boolean field
        ("regioncode: hk", "latitude: 22"),
        ("    regioncode: hk\n", ""),
        ("hostname: hk1.example.org", "hostname: hk1.example.org\n        ipv6:"),  # no value: not there
    ],
)
def test_taken(old, new):
    assert old in GOOD
    assert list(parse_map(GOOD.replace(old, new, 1))) == [900]


RULES = [
    ("regions:", "Regions:", ["line 1: headscale skips 'Regions': here it is 'regions'"]),
    ("regionid: 900", "regionId: 900", [
        "line 3: headscale skips 'regionId': here it is 'regionid'",
        "line 3: region 900 has no regionid: without it, clients measure nothing",
    ]),
    ("regioncode", "region_code", ["line 4: headscale skips 'region_code': here it is 'regioncode'"]),
    ("hostname", "HostName", [
        "line 8: headscale skips 'HostName': here it is 'hostname'",
        "line 6: a node of region 900 has no hostname",
    ]),
    ("derpport", "derpprt", [
        "line 9: headscale skips 'derpprt', which it does not know; did you mean 'derpport'?",
    ]),
    ("derpport", "zzz", ["line 9: headscale skips 'zzz', which it does not know"]),
    ("  900:", "  '900':", [
        "line 2: the region id 900 is in quotes: headscale stops at it, ids are bare numbers here",
    ]),
    ("  900:", "  hk:", ["line 2: 'hk' is not a region id: ids are bare numbers here"]),
    ("  900:", "  0x384:", ["line 2: '0x384' is not a region id: ids are bare numbers here"]),
    ("  900:", "  901:", ["line 3: regionid 900 is under 901", "line 7: regionid 900 is under 901"]),
    ("    regionid: 900\n", "    regionid: '900'\n", [
        "line 3: regionid: '900' in quotes is not a whole number",
    ]),
    ("        regionid: 900", "        regionid: 901", ["line 7: regionid 901 is under 900"]),
    ("        regionid: 900\n", "", [
        "line 6: a node of region 900 has no regionid: without it, clients measure nothing",
    ]),
    ("hk1.example.org", "https://hk1.example.org", [
        "line 8: hostname 'https://hk1.example.org' has to be a name only, without scheme, port or path",
    ]),
    ("hk1.example.org", "hk1.example.org:443", [
        "line 8: hostname 'hk1.example.org:443' has to be a name only, without scheme, port or path",
    ]),
    ("hk1.example.org", "''", ["line 6: a node of region 900 has no hostname"]),
    ("derpport: 443", "derpport: '443'", ["line 9: derpport: '443' in quotes is not a whole number"]),
    ("derpport: 443", "derpport: 443.0", ["line 9: derpport: '443.0' is not a whole number"]),
    ("derpport: 443", "derpport: [443]", ["line 9: derpport: this value is not a whole number"]),
    ("derpport: 443", "derpport: 70000", ["line 9: derpport 70000 is not between 0 and 65535"]),
    ("derpport: 443", "stunport: -2", ["line 9: stunport -2 is not between -1 and 65535"]),
    ("derpport: 443", "stunonly: 'true'", ["line 9: stunonly: 'true' in quotes is not true or false"]),
    ("derpport: 443", "name: 900b", ["line 9: name is twice in a node of region 900"]),
    ("regioncode: hk", "latitude: north", ["line 4: latitude: 'north' is not a number"]),
    ("        derpport: 443\n", "      - {name: 900a, regionid: 900, hostname: hk2.example.org}\n", [
        "line 9: name '900a' of region 900 is taken by region 900",
    ]),
    ("        derpport: 443\n", "      -\n", ["line 9: a node of region 900 is not a mapping"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"), RULES, ids=[new.strip() or old.strip() for old, new, _ in RULES]
)
def test_refused(old, new, said):
    assert old in GOOD
    assert complaints(GOOD.replace(old, new, 1)) == said


WHOLE = [
    ("- 900\n", ["line 1: the file is not a mapping"]),
    ("regions: [900]\n", ["line 1: regions is not a mapping: each region is under its id"]),
    ("regions: {900: 7}\n", ["line 1: region 900 is not a mapping"]),
    ("regions: {900: {regionid: 900}}\n", ["line 1: region 900 has no list of nodes"]),
    ("regions: {900: {regionid: 900, nodes: []}}\n", ["line 1: region 900 has no list of nodes"]),
    ("regions:\n\t900:\n", ["line 2: there is a tab where only spaces are allowed: indent YAML with spaces"]),
    ("regions: {}\n---\nregions: {}\n", ["line 2: a second document begins here (---); one file holds one"]),
    ("x: &x {}\nregions:\n  <<: *x\n", [
        "line 1: headscale skips 'x', which it does not know",
        "line 3: << is not supported here: write the keys out",
    ]),
    (GOOD + "regions: {}\n", ["line 10: regions is twice in the file"]),
    (GOOD + GOOD.removeprefix("regions:\n"), ["line 10: region 900 is here twice"]),
    (GOOD + GOOD.removeprefix("regions:\n").replace("900", "901").replace("901a", "900a"), [
        "line 14: name '900a' of region 901 is taken by region 900",
    ]),
    ('{"regions": {"900": {"regionid": 900}}}', [
        "line 1: the region id 900 is in quotes: headscale stops at it, ids are bare numbers here",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WHOLE, ids=range(len(WHOLE)))
def test_refused_as_a_whole(text, said):
    assert complaints(text) == said


@settings(max_examples=200)
@given(st.data())
def test_any_text_is_read_or_refused_with_complaints(data):
    text = GOOD
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 9)) :]
    try:
        assert all(isinstance(id, int) for id in parse_map(text))
    except BadMap as error:
        assert error.complaints
