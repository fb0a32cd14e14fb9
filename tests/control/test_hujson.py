"""HuJSON that is read, and changed in place: all other characters stay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from control.derpmap import lower
from control.hujson import NotHujson, Value, parse, standard
from control.hujson_text import put, remove
from tests.control.hujson_texts import OTHER, PATH, REGION, comments, ink, policies


def found(text: str) -> tuple[Value, int, int | None] | None:
    """Return region 900 of a policy, where its entry begins, and its comma."""
    node = parse(text)
    for key in PATH:
        if not node.is_object or (entry := node.find(key)) is None:
            return None
        node = entry.value
    return node, entry.start, entry.comma


def has_regions(text: str) -> bool:
    """Whether the policy has other regions."""
    return '"regions":{"' in ink(standard(text)).lower()


def replaced(before: str, after: str) -> str:
    """Return the part of the text from the first change to the last; "" for an insertion."""
    ahead = same_start(before, after)
    return before[ahead : len(before) - same_start(before[ahead:][::-1], after[ahead:][::-1])]


def same_start(one: str, other: str) -> int:
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))


@given(policies)
@settings(max_examples=300)
def test_a_region_enters_and_nothing_else_moves(text: str) -> None:
    after = put(text, PATH, REGION)
    region = found(after)
    assert region is not None and region[0].plain().keys() == put_keys(text)
    assert lower(region[0].plain()) == lower(REGION)
    assert put(after, PATH, REGION) == after
    there = found(text)
    if there is not None:
        value = there[0]
        assert after.startswith(text[: value.start]) and after.endswith(text[value.end :])
    elif has_regions(text):
        assert replaced(text, after) == ""  # one insertion, and no other change
    else:
        assert replaced(text, after).strip() in ("", "null") and comments(after) == comments(text)


def put_keys(text: str) -> set[str]:
    """Return the keys of the region after it was put: with the case that they had."""
    there = found(text)
    cased = {key.lower(): key for key in there[0].plain()} if there else {}
    return {cased.get(key.lower(), key) for key in REGION}


@given(policies)
@settings(max_examples=300)
def test_a_region_leaves_and_nothing_else_does(text: str) -> None:
    after = remove(text, PATH)
    there = found(text)
    if there is None:
        assert after == text
        return
    value, start, comma = there
    behind = text[value.end :] if comma is None else text[value.end : comma] + text[comma + 1 :]
    assert found(after) is None and ink(after) == ink(text[:start] + behind)
    assert comments(after) == comments(text[:start]) + comments(behind)
    tail = text[value.end if comma is None else comma + 1 :]
    assert after.startswith(text[:start].rstrip(" \t")) and after.endswith(tail.lstrip(" \t\r\n"))


@given(policies)
@settings(max_examples=200)
def test_what_enters_can_leave_again(text: str) -> None:
    if found(text) is None and has_regions(text):
        assert ink(remove(put(text, PATH, REGION), PATH)) == ink(text)


@given(policies)
@settings(max_examples=200)
def test_plain_json_has_the_same_data_in_the_same_places(text: str) -> None:
    plain = standard(text)
    assert json.loads(plain) == parse(text).plain()
    assert [len(line) for line in plain.split("\n")] == [len(line) for line in text.split("\n")]
    assert standard(plain) == plain


POLICY = """\
// our policy
{
\t"groups": {"group:a": ["x@example.org"]}, // people
\t"DerpMap": {
\t\t"Regions": {
\t\t\t// Singapore
\t\t\t"901": {"RegionID": 901, "RegionCode": "sg"},
\t\t},
\t},
}
"""


def test_a_region_is_written_as_the_policy_is() -> None:
    assert put(POLICY, PATH, {"RegionID": 900, "Nodes": [{"Name": "900a"}]}) == POLICY.replace(
        '"sg"},\n',
        '"sg"},\n'
        '\t\t\t"900": {\n\t\t\t\t"RegionID": 900,\n\t\t\t\t"Nodes": [\n\t\t\t\t\t{\n'
        '\t\t\t\t\t\t"Name": "900a",\n\t\t\t\t\t},\n\t\t\t\t],\n\t\t\t},\n',
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n\t"a": {\n\t\t"b": 1\n\t}\n}'),
        ("{\r\n}\r\n", '{\r\n\t"a": {\r\n\t\t"b": 1\r\n\t}\r\n}\r\n'),
        ('{"x": 1}', '{"a": {"b": 1}, "x": 1}'),
        ('{"x": 1,}', '{"x": 1, "a": {"b": 1},}'),
        ('{\n  // of x\n  "x": 1\n}\n', '{\n  "a": {\n    "b": 1,\n  },\n  // of x\n  "x": 1\n}\n'),
        ('{ "A": null }', '{ "A": {\n\t"b": 1\n} }'),
        ('{"a": {"B": 2 /* two */}}', '{"a": {"B": 1 /* two */}}'),
        ('{/* x */"x"/* y */\n: 1}', '{"a": {"b": 1}, /* x */"x"/* y */\n: 1}'),
        ('{/* x **/ // y\n"x": 1}', '{/* x **/ // y\n"a": {\n\t"b": 1,\n},\n"x": 1}'),
        ("{ /* nothing */ }", '{ /* nothing */ "a": {"b": 1}}'),
    ],
)  # fmt: skip
def test_a_key_enters(before: str, after: str) -> None:
    assert put(before, ("a", "b"), 1) == after
    assert put(after, ("a", "b"), 1) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{\n\t"a": 1,\n\t// of b\n\t"b": 2\n}', '{\n\t// of b\n\t"b": 2\n}'),
        ('{"b": 2, "a": 1, "c": 3}', '{"b": 2, "c": 3}'),
        ('{"b": 2, "a": 1}', '{"b": 2, }'),
        ('{"a": 1 /* one */ , "b": 2}', '{ /* one */  "b": 2}'),
        ('{\n\t"a": 1, // one\n}', "{\n\t // one\n}"),
        ('{"b": 2}', '{"b": 2}'),
        ("[1]", "[1]"),
    ],
)
def test_a_key_leaves(before: str, after: str) -> None:
    if before[0] == "[":
        with pytest.raises(NotHujson, match="an object with a is needed here"):
            remove(before, ("a",))
    else:
        assert remove(before, ("a",)) == after


def test_a_value_of_another_kind_is_replaced_whole() -> None:
    assert put('{"a": [1, 2]}', ("a",), [1]) == '{"a": [\n\t1\n]}'
    assert put('{"a": [1, /* x */ 2]}', ("a",), [1, 3]) == '{"a": [1, /* x */ 3]}'
    assert put('{"a": true}', ("a",), 1) == '{"a": 1}'
    assert put('{"a": 1.0}', ("a",), {}) == '{"a": {}}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1, column 1: a value is missing before the end of the text"),
        ('{\n\t"a": 1\n\t"b": 2\n}', "line 3, column 2: a comma or } is missing"),
        ('{"a" 1}', "line 1, column 6: a colon is missing behind the key a"),
        ("{a: 1}", 'line 1, column 2: a key in double quotes or } is missing'),
        ("{,}", "line 1, column 2: a key in double quotes or } is missing"),
        ('{"a": 1,,}', "line 1, column 9: a key in double quotes or } is missing"),
        ("[1, 2", "line 1, column 6: a comma or ] is missing"),
        ("[,]", "line 1, column 2: a value is missing before ','"),
        ('{"a": tru}', "line 1, column 7: tru is no value of JSON"),
        ('{"a": 01}', "line 1, column 7: 01 is no value of JSON"),
        (r'{"\x": 1}', r'line 1, column 2: "\x" is no key of JSON'),
        ('{"a": "\n"}', "line 1, column 7: a value is missing before '\"'"),
        ("{} {}", "line 1, column 4: '{' is behind the end of the value"),
        ("{}\n// end", "line 2, column 1: the comment that begins here does not end with a line break"),
        ("{/* x }", "line 1, column 2: the comment that begins here does not end with */"),
        ("[" * 200, "line 1, column 102: values are nested more than 100 deep"),
        (
            '{"derpMap": {},\n "DERPMAP": {}}',
            "line 2, column 2: DERPMAP is here a second time: derpMap is in line 1 already",
        ),
    ],
)  # fmt: skip
def test_a_text_that_is_no_hujson(text: str, words: str) -> None:
    with pytest.raises(NotHujson) as error:
        put(text, PATH, OTHER)
    assert str(error.value) == words


def test_numbers_of_any_size() -> None:
    assert parse("[1e999, -0, 12345678901234567890]").plain() == [float("inf"), 0, 12345678901234567890.0]
    assert parse("9" * 9000).plain() == float("inf")
