"""The rung `handshake`: clients that were greeted log in, and are admitted or refused."""

from __future__ import annotations

import asyncio

from probe.derp import Cast, HungUp, ProbeClient
from probe.net import Flooded, Patience, within
from probe.proof import Broken, Found
from probe.target import Part, Target
from relay.client import Admitted
from relay.core.wire import ProtocolError


async def check_handshake(target: Target, cast: Cast, patience: Patience) -> Found[bool]:
    """Log all clients in: known keys have to be admitted, and a stranger only if the relay is open.

    The value: whether the pair was admitted. Raises Broken.
    """
    verdicts = await asyncio.gather(*(_log_in(target, peer, patience) for peer in cast.all))
    pair_in = all(verdicts[:2])
    stranger_in = verdicts[2] if cast.stranger else verdicts[0]
    stranger_key = (cast.stranger or cast.pair[0]).key.hex()
    known = target.prover is not None
    if target.expect_admission == "verify" and stranger_in:
        raise Broken(
            "a key that was made up a moment ago was admitted",
            cause=(
                "the relay admits every key, always or while its admission controller is "
                "away: anyone who finds it may use it"
            ),
            next=_closed(target),
        )
    if known and not pair_in:
        raise Broken(
            "the prover's own keys were refused",
            cause=(
                "the relay was last deployed by another version, or with another prover.json, and does "
                "not know them"
            ),
            next=target.redeploy(Part.RELAY, "add the prover's public keys to the relay's -prober-keys"),
        )
    if target.expect_admission == "open" and not stranger_in:
        raise Broken(
            "the relay greeted a fresh key and hung up on it",
            cause=(
                "the relay verifies its clients but should be open; or its admission "
                "controller is away and it refuses all"
            ),
            next=target.redeploy(Part.RELAY, "drop -verify-client-url", unchanged=target.read_log),
        )
    if verdicts[0] != verdicts[1]:
        raise Broken(
            "one fresh key was admitted, another refused",
            cause="the relay's admission answers two equal clients differently",
            next=target.again,
        )
    if pair_in:
        detail = (
            "two known keys admitted, a stranger refused"
            if known and not stranger_in
            else "a stranger's key admitted: open to everyone"
        )
        return Found(True, detail, data={"stranger_admitted": stranger_in, "stranger": stranger_key})
    return Found(
        False,
        "a stranger's key refused: only registered nodes get in",
        data={"stranger_admitted": False, "stranger": stranger_key},
    )


def _closed(target: Target) -> str:
    return target.redeploy(
        Part.RELAY,
        "start it with -verify-client-url and -verify-client-url-fail-open=false",
        unchanged=f"set the admission controller to refuse unknown nodes, then {target.again}",
    )


async def _log_in(target: Target, peer: ProbeClient, patience: Patience) -> bool:
    """Whether the relay admits the client; it refuses one by hanging up. Raises Broken."""
    late = Broken(
        f"neither admitted nor refused in {patience.derp_s:g} s",
        cause="the relay waits for its admission controller, which does not answer",
        next=target.read_log,
    )
    try:
        async with within(patience.derp_s, late):
            await peer.flush()
            while not isinstance(await peer.next(), Admitted):
                pass
            return True
    except HungUp:
        return False
    except (ProtocolError, Flooded) as error:
        raise Broken(
            f"the relay's second frame cannot be read: {error}",
            cause="the server is no DERP server, or its key is not the one that it named",
            next=target.restart(),
        ) from None
