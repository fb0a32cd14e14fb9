from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import stun
from relay.core.wire import ProtocolError
from tests.relay import vectors as v


def test_requests_and_responses_are_those_of_go():
    assert stun.pack_request(v.TXID) == v.STUN_REQUEST
    assert stun.parse_request(v.STUN_REQUEST) == v.TXID
    assert stun.pack_response(v.TXID, ip_address("203.0.113.7").packed, 41641) == v.STUN_RESPONSE_4
    assert stun.pack_response(v.TXID, ip_address("2001:db8::7").packed, 41641) == v.STUN_RESPONSE_6


def test_mapped_ipv4_is_answered_as_ipv4():
    assert stun.pack_response(v.TXID, ip_address("::ffff:203.0.113.7").packed, 41641) == v.STUN_RESPONSE_4


@pytest.mark.parametrize("name", v.STUN_ANSWERED)
def test_unusual_requests_that_the_reference_answers(name):
    assert stun.parse_request(bytes.fromhex(v.STUN_ANSWERED[name])) == v.TXID


@pytest.mark.parametrize("name", v.STUN_DROPPED)
def test_datagrams_that_the_reference_drops(name):
    with pytest.raises(ProtocolError, match="not_stun"):
        stun.parse_request(bytes.fromhex(v.STUN_DROPPED[name]))


HEAD = bytes.fromhex("2112a442") + v.TXID
DATAGRAMS = [v.STUN_REQUEST, *map(bytes.fromhex, [*v.STUN_ANSWERED.values(), *v.STUN_DROPPED.values()])]


def response(attributes: str, *, length: int | None = None, extra: bytes = b"") -> bytes:
    body = bytes.fromhex(attributes)
    return b"\1\1" + (len(body) if length is None else length).to_bytes(2, "big") + HEAD + body + extra


@pytest.mark.parametrize(
    ("datagram", "address"),
    [
        (v.STUN_RESPONSE_4, "203.0.113.7"),
        (v.STUN_RESPONSE_6, "2001:db8::7"),
        (v.STUN_RESPONSE_MAPPED, "203.0.113.7"),
        (response("80200008000183bbea12d545"), "203.0.113.7"),
        (response("000100080001a2a9cb007107"), "203.0.113.7"),
        (response("000100080001a2a9cb00710900200008000183bbea12d545"), "203.0.113.7"),
        (response("80220001610000000020 0008000183bbea12d545"), "203.0.113.7"),
        (response("00200008000183bbea12d545", extra=b"trailing"), "203.0.113.7"),
    ],
)
def test_responses_that_clients_understand(datagram, address):
    assert stun.parse_response(datagram, v.TXID) == (ip_address(address), 41641)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (v.STUN_RESPONSE_4[:19], "not_stun"),
        (b"\xc1" + v.STUN_RESPONSE_4[1:], "not_stun"),
        (b"\1\1\0\0\0\0\0\0" + v.STUN_RESPONSE_4[8:], "not_stun"),
        (v.STUN_RESPONSE_4[:8] + bytes(12) + v.STUN_RESPONSE_4[20:], "wrong_txid"),
        (b"\1\x11" + v.STUN_RESPONSE_4[2:], "stun_error"),
        (v.STUN_RESPONSE_4[:-1], "not_stun"),
        (response("002000080002a2a9cb007107"), "not_stun"),
        (response("0020000100000000"), "not_stun"),
        (response("0020"), "not_stun"),
        (response("00200008"), "not_stun"),
        (response("80220000"), "no_address"),
    ],
)
def test_responses_that_say_nothing(datagram, reason):
    with pytest.raises(ProtocolError) as error:
        stun.parse_response(datagram, v.TXID)
    assert error.value.reason == reason


addresses = st.ip_addresses().filter(lambda address: address.version == 4 or address.ipv4_mapped is None)


@given(st.binary(min_size=12, max_size=12), addresses, st.integers(0, 65535))
def test_an_answer_says_what_was_seen(txid, address, port):
    answer = stun.pack_response(txid, address.packed, port)
    assert stun.parse_response(answer, txid) == (address, port)
    assert len(answer) <= 44


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: v.STUN_REQUEST[:20] + tail))
def test_garbage_is_not_stun(datagram):
    for parse in (stun.parse_request, lambda data: stun.parse_response(data, v.TXID)):
        try:
            parse(datagram)
        except ProtocolError as error:
            assert error.reason in {"not_stun", "wrong_txid", "stun_error", "no_address"}


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.binary(min_size=12, max_size=12).map(stun.pack_request),
                st.sampled_from(DATAGRAMS),
                st.binary(max_size=80),
            ),
            st.binary(min_size=4, max_size=4),
            st.integers(0, 65535),
        ),
        max_size=8,
    )
)
def test_a_batch_is_answered_as_its_datagrams_are(asked):
    requests, sources, answers = (
        bytearray(8 * stun.SLOT),
        bytearray(8 * stun.SOURCE4),
        bytearray(8 * stun.ANSWER4),
    )
    for slot, (datagram, address, port) in enumerate(asked):
        requests[slot * stun.SLOT : slot * stun.SLOT + len(datagram)] = datagram
        sources[slot * stun.SOURCE4 + 2 : slot * stun.SOURCE4 + 8] = port.to_bytes(2, "big") + address
    views = memoryview(requests)[: len(asked) * stun.SLOT], memoryview(sources)[: len(asked) * stun.SOURCE4]
    unusual = stun.answer_batch4(views[0], [len(datagram) for datagram, _, _ in asked], views[1], answers)
    for slot, (datagram, address, port) in enumerate(asked):
        answer = bytes(answers[slot * stun.ANSWER4 : (slot + 1) * stun.ANSWER4])
        is_usual = len(datagram) == 40 and datagram == stun.pack_request(datagram[8:20])
        assert is_usual is (slot not in unusual)
        assert answer == (
            stun.pack_response(datagram[8:20], address, port) if is_usual else bytes(stun.ANSWER4)
        )
