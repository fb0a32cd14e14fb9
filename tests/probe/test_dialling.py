"""The proof's clients dial while the first connection opens TLS, which saves a turn."""

from __future__ import annotations

import asyncio

from probe.proof import Proof
from probe.verify import verify
from tests.probe.faulty_servers import together
from tests.probe.seeding import HASTE, Stage


def test_the_clients_connections_are_there_before_tls_is_answered(stage: Stage) -> None:
    async def climb() -> Proof:
        async with stage.open:
            return await verify(await stage.instead(together(3, stage.fronted[0])), patience=HASTE)

    proof = asyncio.run(climb())
    assert proof.ok, proof.to_json()


def test_they_are_closed_without_a_word_when_tls_does_not_hold(stage: Stage) -> None:
    said, answers = list[bytes](), iter([b"220 mail.example.org\r\n"])

    async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(answers, b""))
        said.append(await reader.read())

    async def climb() -> Proof:
        async with stage.open:
            proof = await verify(await stage.instead(no_tls), patience=HASTE)
            async with asyncio.timeout(5):
                while said.count(b"") < 2:
                    await asyncio.sleep(0.01)
            return proof

    proof = asyncio.run(climb())
    assert proof.failed_rung == proof["tls"], proof.to_json()
    assert proof["upgrade"].status == "skipped"
