import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.http.proxy_header import ProxyHeader, ProxyHeaderError, TrustedProxies, parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = TrustedProxies(["127.0.0.1", "::1", "10.0.0.0/8"])


@pytest.mark.parametrize(
    "peer, forwarded, client",
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # any client can write the header
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # the client wrote 6.6.6.6
        # Two of our own in a row.
        ("127.0.0.1", ["6.6.6.6", "198.51.100.1,10.1.2.3"], "198.51.100.1"),
        ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["6.6.6.6, unknown, 10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("127.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("127.0.0.1", ["2001:DB8::7"], "2001:db8::7"),
        ("127.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::1", ["fe80::1%eth0"], "fe80::1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_forwarded_for(peer, forwarded, client):
    assert LOCAL.client_of(peer, forwarded) == client


def test_an_endless_header_is_read_from_its_end_only():
    assert LOCAL.client_of("127.0.0.1", ["10.0.0.1," * 100_000 + "198.51.100.1"]) == "198.51.100.1"


def test_networks_must_be_networks():
    assert not TrustedProxies([]) and TrustedProxies(["192.0.2.1/24"]).trusts("192.0.2.200")
    assert TrustedProxies([]).client_of("127.0.0.1", ["1.2.3.4"]) == "127.0.0.1"
    with pytest.raises(ValueError, match="does not appear"):
        TrustedProxies(["localhost"])


def v2(family, body, *, command=0x21, length=None):
    return (
        SIGNATURE
        + bytes((command, family))
        + struct.pack(">H", len(body) if length is None else length)
        + body
    )


INET = ip_address("198.51.100.1").packed + ip_address("203.0.113.1").packed + struct.pack(">HH", 4711, 443)
INET6 = ip_address("2001:db8::7").packed + ip_address("2001:db8::1").packed + struct.pack(">HH", 4711, 443)


@pytest.mark.parametrize(
    "header, source",
    [
        (b"PROXY TCP4 198.51.100.1 203.0.113.1 4711 443\r\n", ("198.51.100.1", 4711)),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", ("2001:db8::7", 4711)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff:f...f:ffff rubbish\r\n", None),
        (v2(0x11, INET), ("198.51.100.1", 4711)),
        (v2(0x11, INET + b"\x04\0\x01x"), ("198.51.100.1", 4711)),  # with a TLV
        (v2(0x21, INET6), ("2001:db8::7", 4711)),
        (v2(0x00, b""), None),
        (v2(0x31, bytes(216)), None),  # AF_UNIX
        (v2(0x11, INET, command=0x20), None),  # LOCAL: the proxy's own health check
    ],
)
def test_headers_at_any_chunking(header, source):
    for cut in range(len(header)):
        assert parse_proxy_header(header[:cut]) is None
    assert parse_proxy_header(header + b"GET /derp") == ProxyHeader(len(header), source)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY " + b"x" * 101,
        b"PROXY UNKNOWN" + b" " * 93 + b"\r\n",  # one too long
        b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 ::1 1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 -1 1\r\n",
        b"PROXY TCP4 1.1.1.1 1.1.1.1 123456 1\r\n",
        b"PROXY TCP4 \xff.1.1.1 1.1.1.1 1 1\r\n",
        b"PROXY \r\n",
        v2(0x11, INET, command=0x31),
        v2(0x11, INET, command=0x22),
        v2(0x11, INET[:11]),
        v2(0x21, INET),
        v2(0x11, b"", length=2049),
    ],
)
def test_what_is_no_header(data):
    with pytest.raises(ProxyHeaderError) as e:
        parse_proxy_header(data)
    assert e.value.reason == "bad_proxy_header"


@pytest.mark.parametrize("data", [b"GET /derp HTTP/1.1\r\n", b"\x16\x03\x01", b"\r\n\r\n\0\r\nQUIX", b"P\0"])
def test_a_connection_without_header_has_its_own_reason(data):
    with pytest.raises(ProxyHeaderError, match="no_proxy_header"):
        parse_proxy_header(data)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=120).map(lambda b: b"PROXY " + b),
        st.binary(max_size=120).map(lambda b: SIGNATURE + b),
    )
)
def test_any_bytes_give_a_header_a_wait_or_a_reason(data):
    try:
        header = parse_proxy_header(data)
    except ProxyHeaderError:
        return
    if header is None:
        assert len(data) < 16 + 2048
    else:
        assert header.size <= len(data)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_survives_both_versions(address, port):
    family = b"TCP%d" % (4 if address.version == 4 else 6)
    text = str(address).encode()
    if address.version == 6 and address.scope_id:
        return
    v1 = b"PROXY %s %s %s %d 1\r\n" % (family, text, text, port)
    body = address.packed * 2 + struct.pack(">HH", port, 1)
    for header in (v1, v2(0x11 if address.version == 4 else 0x21, body)):
        assert parse_proxy_header(header).source == (str(address), port)
