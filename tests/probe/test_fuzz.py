"""Any words of a peer, a CA or a map lead to a judgement, never to a traceback."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.served import Map
from probe.certificate import read_chain
from probe.derpmap import check_map
from probe.net import Patience
from probe.proof import Broken, Proof
from probe.target import Target
from probe.verify import verify
from probe.web import excerpt
from relay.core.wire import pack_frame
from tests.probe.authority import Authority, Issued
from tests.probe.faulty_servers import SWITCH, FaultyRelay, saying, serving
from tests.probe.servers import DOMAIN, Backend, target

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["regions", "900", "nodes", "hostname", "stunport", "x"]), inner)
    ),
    max_leaves=12,
)
# Every peer answers or hangs up at once: only a machine that pauses needs so much.
AMPLE = Patience(stun_s=5, tls_s=5, http_s=5, derp_s=5, packets_s=5)
IN_FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@given(ANY_JSON, st.booleans())
def test_any_map(content: object, by_id: bool) -> None:
    hk1 = Target(name="hk1", domain="hk1.example.org", region_id=900 if by_id else None)
    with suppress(Broken):
        check_map(hk1, Map({"regions": content}), port_80=None)


@given(st.binary(max_size=300))
def test_any_body_makes_a_short_line(body: bytes) -> None:
    line = excerpt(body)
    assert len(line) <= 80
    assert line.isprintable()


@IN_FIXTURES
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4))
def test_any_certificate(changes: list[tuple[int, int]], good: Issued) -> None:
    der = bytearray(
        ssl.PEM_cert_to_DER_cert(
            good.chain.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
        )
    )
    for at, value in changes:
        der[at % len(der)] = value
    with warnings.catch_warnings(), suppress(ValueError):
        warnings.simplefilter("ignore")  # cryptography warns of some of these bytes
        chain = read_chain([bytes(der)])
        assert chain.count == 1


@pytest.fixture
def healthy(fronted: tuple[int, int], relay: Backend, authority: Authority) -> Target:
    return target(*fronted, relay.stun, ca=authority.ca)


@settings(IN_FIXTURES, max_examples=25)
@given(
    words=st.binary(max_size=200),
    before=st.sampled_from(
        [b"", SWITCH + b"\r\n", SWITCH + b"\r\n" + pack_frame(1, b"DERP\xf0\x9f\x94\x91" + bytes(range(32)))]
    ),
)
def test_any_answer_to_the_upgrade(words: bytes, before: bytes, healthy: Target, good: Issued) -> None:
    async def climb() -> Proof:
        async with serving(FaultyRelay(upgrade=saying(before + words)), good) as port:
            return await verify(replace(healthy, https_port=port, domain=DOMAIN), patience=AMPLE)

    proof = asyncio.run(climb())
    assert proof["probe"].status == "ok"
    assert proof.failed_rung is not None
    assert proof.failed_rung.name in {"upgrade", "handshake"}


@settings(IN_FIXTURES, max_examples=25)
@given(words=st.binary(max_size=200))
def test_any_words_on_the_https_port(words: bytes, healthy: Target) -> None:
    async def climb() -> Proof:
        async with serving(saying(words)) as port:
            return await verify(replace(healthy, https_port=port), patience=AMPLE)

    proof = asyncio.run(climb())
    assert proof.failed_rung is not None
    assert proof.failed_rung.name == "tls"
    assert proof.failed_rung.cause
