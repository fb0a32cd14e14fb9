"""A YAML file changed in place: it reads as wanted, and nothing else of it has moved."""

import difflib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from control.yaml_text import CannotPatch, _same, block, flow, patch, plain, tree
from inventory.document import NotYaml, compose

SAMPLES = Path(__file__).parent / "headscale"


def read(text):
    return plain(compose(text))


def changed_lines(before, after):
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


CASES = {
    "empty flow list": (
        "a:\n  paths: []  # none\n  b: 1\n",
        lambda d: d["a"]["paths"].append("/x"),
        ["-   paths: []  # none", '+   paths: ["/x"]  # none'],
    ),
    "flow list": ("a: [x, 'y']\n", lambda d: d["a"].append("z"), ["- a: [x, 'y']", "+ a: [x, 'y', \"z\"]"]),
    "flow list over lines": (
        "a: [\n  x,\n  y,\n]\n",
        lambda d: d["a"].append("z"),
        ["-   y,", '+   y, "z",'],
    ),
    "block list": ("a:\n  - x  # ex\n\nb: 1\n", lambda d: d["a"].append("z"), ['+   - "z"']),
    "block list not indented": ("a:\n- x\n- y\nb: 1\n", lambda d: d["a"].append("z"), ['+ - "z"']),
    "no value": (
        "a:\n  paths:\n  b: 1\n",
        lambda d: d["a"].__setitem__("paths", ["/x"]),
        ["-   paths:", '+   paths: ["/x"]'],
    ),
    "no key": (
        "a:\n  b: 1\n\n# end\nc: 2\n",
        lambda d: d["a"].__setitem__("paths", ["/x"]),
        ["+   paths:", '+     - "/x"'],
    ),
    "no section": (
        "c: 2\n# end",
        lambda d: d.__setitem__("a", {"paths": ["/x"]}),
        ["+ a:", "+   paths:", '+     - "/x"'],
    ),
    "flow section": (
        "a: {b: 1}\n",
        lambda d: d["a"].__setitem__("paths", ["/x"]),
        ["- a: {b: 1}", '+ a: {b: 1, paths: ["/x"]}'],
    ),
    "empty flow mapping": (
        "a: {}  # none\nb: 1\n",
        lambda d: d["a"].__setitem__(900, {"x": 1}),
        ["- a: {}  # none", "+ a:  # none", "+   900:", "+     x: 1"],
    ),
    "a scalar": ("a: 1   # one\n", lambda d: d.__setitem__("a", 2), ["- a: 1   # one", "+ a: 2   # one"]),
    "a type": ("a: '1'\n", lambda d: d.__setitem__("a", 1), ["- a: '1'", "+ a: 1"]),
    "removal": ("a: 1\n# of b\nb:\n  c: 2\nd: 3\n", lambda d: d.pop("b"), ["- b:", "-   c: 2"]),
    "removal in flow": (
        "a: {b: 1, c: 2, d: 3}\n",
        lambda d: d["a"].pop("c"),
        ["- a: {b: 1, c: 2, d: 3}", "+ a: {b: 1, d: 3}"],
    ),
    "last removal in flow": (
        "a: {b: 1, c: 2}\n",
        lambda d: d["a"].pop("c"),
        ["- a: {b: 1, c: 2}", "+ a: {b: 1}"],
    ),
    "emptied": ("a:\n  b: 1\nc: 2\n", lambda d: d["a"].clear(), ["- a:", "-   b: 1", "+ a: {}"]),
    "a comment that belongs to the last entry": (
        "a:\n  b:\n    c: 1\n    # d: 2\n# of e\ne: 1\n",
        lambda d: d["a"].__setitem__("n", 1),
        ["+   n: 1"],
    ),
    "a block scalar at the end": (
        "a:\n  b: |\n    text\n    more\n\nc: 1\n",
        lambda d: d["a"].__setitem__("n", 1),
        ["+   n: 1"],
    ),
    "a list item": (
        "a:\n  - name: x   # ex\n    b: 1\n",
        lambda d: d["a"][0].update(b=2, c=3),
        ["-     b: 1", "+     b: 2", "+     c: 3"],
    ),
    "a shorter list": (
        "a:\n  - x\n  - y # why\n  - z\nb: 1\n",
        lambda d: d["a"].__delitem__(slice(1, None)),
        ["-   - y # why", "-   - z"],
    ),
    "windows line ends": ("a: 1\r\nb: 2\r\n", lambda d: d.__setitem__("c", 3), ["+ c: 3"]),
}


@pytest.mark.parametrize(("text", "change", "diff"), CASES.values(), ids=CASES)
def test_only_the_differences_are_written(text, change, diff):
    wanted = read(text)
    change(wanted)
    result = patch(text, wanted)
    assert read(result) == wanted
    assert sorted(line.split(" ? ")[0] for line in changed_lines(text, result)) == sorted(diff)
    assert result.count("\r\n") in (0, result.count("\n"))


def test_an_added_entry_is_behind_the_comments_of_the_one_before():
    text = "a:\n  b:\n    c: 1\n    # d: 2\n# of e\ne: 1\n"
    assert (
        patch(text, {"a": {"b": {"c": 1}, "n": 1}, "e": 1})
        == "a:\n  b:\n    c: 1\n    # d: 2\n  n: 1\n# of e\ne: 1\n"
    )


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "# no line break"])
def test_an_empty_file_is_filled(text):
    result = patch(text, {"regions": {900: {"regionid": 900}}})
    assert read(result) == {"regions": {900: {"regionid": 900}}}
    assert result.startswith(text)


def test_equal_means_of_the_same_type():
    assert patch("a: true\n", {"a": 1}) == "a: 1\n"
    assert patch("a: 1\n", {"a": 1}) == "a: 1\n"


@pytest.mark.parametrize("text", ["- a\n", "text\n"])
def test_a_file_that_is_no_mapping_is_refused(text):
    with pytest.raises(CannotPatch):
        patch(text, {"a": 1})


def test_a_change_that_an_alias_would_repeat_elsewhere_is_refused():
    with pytest.raises(CannotPatch):
        patch("a: &x [1]\nb: *x\n", {"a": [1], "b": [1, 2]})


def test_an_alias_that_leads_back_to_itself_is_refused():
    with pytest.raises(NotYaml, match="leads back"):
        read("a: &x {b: *x}\n")


def test_a_merge_key_takes_mappings():
    with pytest.raises(NotYaml, match="<< takes a mapping"):
        read("<<: 3\n")


def test_a_key_is_a_word():
    with pytest.raises(NotYaml, match="a key is a word"):
        read("[a]: 1\n")


def test_merge_keys_are_read():
    assert read("a: &x {b: 1, c: 1}\nd: {<<: *x, c: 2}\ne: {<<: [*x, {f: 3}]}\n") == {
        "a": {"b": 1, "c": 1},
        "d": {"b": 1, "c": 2},
        "e": {"b": 1, "c": 1, "f": 3},
    }


names = st.text("abcdefgh", min_size=1, max_size=3)
scalars = st.one_of(
    st.integers(-5, 99999),
    st.booleans(),
    st.none(),
    st.text(max_size=6),
    st.sampled_from(["no", "1.5", "~", "a: b", "#", "-", "é香"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(names, st.integers(0, 999)), inner, max_size=4)
    ),
    max_leaves=12,
)
documents = st.dictionaries(names, values, max_size=5)


def printable(value):
    """Whether YAML can hold all texts in the value on one line, unchanged."""
    if isinstance(value, dict):
        return all(printable(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return all(map(printable, value))
    return not isinstance(value, str) or (value.isprintable() and "\ufeff" not in value)


@settings(max_examples=300)
@given(documents.filter(printable))
def test_the_text_that_block_writes_is_read_back(document):
    assert _same(read("\n".join(block(document))) or {}, document)
    assert _same(read(flow(document)), document)


@settings(max_examples=400)
@example({"b": [{"a": 0}]}, {"b": [{"b": 0}]})  # an item whose only key goes keeps its dash
@example({"b": [{"a": 0, "c": 1}]}, {"b": [{"c": 1}]})
@given(documents.filter(bool).filter(printable), documents.filter(bool).filter(printable))
def test_any_document_becomes_any_other_and_its_comments_stay(before, after):
    lines = ["# head", *(f"{line}  # {number}" for number, line in enumerate(block(before))), "# foot"]
    result = patch("\n".join(lines) + "\n", after)
    assert _same(read(result) or {}, after)
    kept = {name for name in before if name in after and _same(before[name], after[name])}
    for name in kept:
        entry = block({name: before[name]})
        start = block(before).index(entry[0])
        own = "\n".join(lines[1 + start : 1 + start + len(entry)])
        assert own in result


def test_the_sample_configuration_gains_one_line():
    text = (SAMPLES / "config.yaml").read_text()
    wanted = read(text)
    wanted["derp"]["paths"].append("/etc/headscale/derp.yaml")
    assert changed_lines(text, patch(text, wanted)) == [
        "-   paths: []",
        '+   paths: ["/etc/headscale/derp.yaml"]',
    ]
    text = text.replace("  paths: []\n", "  paths:\n    - /etc/headscale/office.yaml  # of the office\n")
    wanted["derp"]["paths"] = ["/etc/headscale/office.yaml", "/etc/headscale/derp.yaml"]
    assert changed_lines(text, patch(text, wanted)) == ['+     - "/etc/headscale/derp.yaml"']


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi")
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [*{old}, *{old}, *{old}]}}\n" for old, new in pairwise("abcdefghijklmnop")
)


@pytest.mark.parametrize("text", [ALIASES, MERGES, f"[{'a,' * 130_000}a]", "- a\n" * 60_000])
def test_a_file_of_more_values_than_anybody_writes_is_refused(text):
    """Nine levels of aliases are 300 bytes, and a billion values."""
    with pytest.raises(NotYaml, match="more than 10000 values"):
        plain(tree(text))


def test_a_key_without_a_colon_is_a_reason_and_no_crash():
    for text in ("? b", "? b\n"):
        for value in (1, {"c": 1}, [1]):
            with pytest.raises(CannotPatch):
                patch(text, {"b": value})
