"""JSON objects as Go reads them into a struct."""

from __future__ import annotations

from math import inf

import pytest

from relay.golang.json import parse_first_object, parse_object

BOTH = [
    (b'{"Allow":true}', {"allow": True}),
    (b' \r\n\t{"a":1,"A":2,"b":null}', {"a": 2}),
    (b"null", {}),
    (b"{}", {}),
    (b'{"a":1,"x":-%s}' % (b"9" * 100_000), {"a": 1, "x": inf}),
    (b'{"a":18446744073709551615}', {"a": 2**64 - 1}),
    (b'{"a":"\xff"}', {"a": "\ufffd"}),
]
NEITHER = [b"", b"x", b"[]", b"1", b"[" * 100_000, b'{"a":', b'{"a":NaN}', b"\xef\xbb\xbf{}"]


@pytest.mark.parametrize("parse", [parse_object, parse_first_object])
@pytest.mark.parametrize(("text", "members"), BOTH)
def test_objects(parse, text, members):
    assert parse(text) == members


@pytest.mark.parametrize("parse", [parse_object, parse_first_object])
@pytest.mark.parametrize("text", NEITHER)
def test_anything_else(parse, text):
    with pytest.raises(ValueError, match=r"is not JSON|is not a JSON object"):
        parse(text)


@pytest.mark.parametrize("rest", [b" x", b'{"a":2}', b"\xff", b"]"])
def test_the_text_behind_the_first_document(rest):
    assert parse_first_object(b'{"a":1}' + rest) == {"a": 1}
    with pytest.raises(ValueError, match="is not JSON"):
        parse_object(b'{"a":1}' + rest)
