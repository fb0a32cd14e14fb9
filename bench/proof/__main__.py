"""The whole proof of a healthy relay behind nginx, at a distance.

    python -m bench.proof [--rtt 100ms] [--runs 5] [--hosts 50]

The relay's host is asked too whom it admits, over a real sshd at the same distance, which needs
root.

The servers are those of the proof's own tests: our relay, a real nginx with TLS, and `lab.delay` in
front of all three ports. Order is kept and bandwidth is loopback's. So TCP's slow start, about
three more round trips for the packets of 64 KiB, does not show here.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.proof.admission import asked_host, proof_with_admission
from lab.delaying import delaying
from probe.proof import LADDER, Proof
from probe.verify import prove
from tests.probe.authority import Authority
from tests.probe.servers import DOMAIN, LOOPBACK, OURS, Front, backend, nginx, target


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rtt", type=lambda text: float(text.removesuffix("ms")) / 1000, default=0.1)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--hosts", type=int, default=50, help="how many proofs at once in the last line")
    given = arguments.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(folder)
        # the whole fleet is one address
        relay = stack.enter_context(backend(OURS, folder / "relay", "-handshakes-per-address", "0"))
        https, http = stack.enter_context(nginx(Front.of(authority.issue(DOMAIN)), relay, folder / "front"))
        near = target(https, http, relay.stun, ca=authority.ca)
        proxies = [
            stack.enter_context(delaying((LOOPBACK, port), rtt_s=given.rtt, udp=udp))
            for port, udp in ((https, False), (http, False), (relay.stun, True))
        ]
        far = replace(
            near,
            **dict(
                zip(("https_port", "http_port", "stun_port"), (proxy.port for proxy in proxies), strict=True)
            ),
        )
        for label, one in (("no delay", near), (f"{given.rtt * 1000:.0f} ms", far)):
            report(label, [prove([one])[0] for _ in range(given.runs)])
        fleet, host = stack.enter_context(asked_host(folder / "host", given.rtt))
        one = replace(far, name=host.name)
        asked = [proof_with_admission(fleet, host, one) for _ in range(given.runs)]
        report(f"{given.rtt * 1000:.0f} ms, the relay's host asked as well", asked)
        many = [replace(far, name=f"relay{number}") for number in range(given.hosts)]
        wall, cpu = time.perf_counter(), _cpu_s()
        proofs = prove(many)
        wall, cpu = time.perf_counter() - wall, _cpu_s() - cpu
        good = sum(proof.ok for proof in proofs)
        print(
            f"{given.hosts} at once: {good} proved in {wall:.2f} s, {cpu / given.hosts * 1000:.0f} ms of "
            "CPU each, the proxies included"
        )
        for fault in sorted(
            {f"{rung.title}: {rung.detail} ({rung.cause})" for proof in proofs if (rung := proof.failed_rung)}
        ):
            print("  " + fault)


def report(label: str, proofs: list[Proof]) -> None:
    """Print medians over the runs, of the whole and of each rung that was climbed."""
    assert all(proof.ok and proof.packets_passed for proof in proofs)
    rungs = {
        name: statistics.median(proof[name].ms for proof in proofs)
        for name in LADDER
        if proofs[0][name].status == "ok"
    }
    whole = [proof.ms for proof in proofs]
    print(f"{label}: median {statistics.median(whole):.0f} ms, worst of {len(whole)} {max(whole):.0f} ms")
    print("  " + ", ".join(f"{name} {ms:.0f}" for name, ms in rungs.items()))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
