"""The relay beside derper while strangers do what they may.

    python -m bench.hostile [crowd] [malformed] [questions] [idle]

- `crowd`: clients behind one address come at once. How many attempts fail until all are in?
- `malformed`: bad requests as fast as they come. How late are the packets of an undisturbed pair?
- `questions`: strangers of many networks. How many questions does the admission controller have
  at once? For our relay only: derper promises no limit.
- `idle`: idle connections of one address to nginx with our settings. How late are others' answers?
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.hostile.crowd import come_at_once
from bench.hostile.idle import answers_beside_idle
from bench.hostile.malformed import lateness
from bench.hostile.questions import questions_at_once
from bench.relay import generator, servers


def both() -> Sequence[servers.Server]:
    """Return both sides, built where that is needed."""
    return servers.relay(python=servers.hosts_python()), servers.derper(generator.build_derper())


def crowd() -> None:
    """Print how clients behind one address get in."""
    for server in both():
        with _running(server) as relay:
            found = asyncio.run(come_at_once(relay, count=600, rtt_s=0.12))
        print(f"| {server.name} | {found.failed} | {found.last_s:.1f} |", flush=True)


def malformed() -> None:
    """Print how late a pair's packets are, without and with the bad requests."""
    for server in both():
        for senders in (0, 2):
            with _running(server, tls=False) as relay:
                found = asyncio.run(lateness(relay, senders=senders))
            print(
                f"| {server.name} | {found.requests_a_second:,.0f} | {found.late_ms:.1f} "
                f"| {found.worst_ms:.1f} |",
                flush=True,
            )


def questions() -> None:
    """Print how many questions there were at once."""
    with tempfile.TemporaryDirectory(prefix="bench-hostile-") as folder:
        found = asyncio.run(questions_at_once(Path(folder)))
    print(f"| relay | {found.in_all} | {found.of_one_network} | {found.strangers} |")


def idle() -> None:
    """Print how late nginx answers others."""
    with tempfile.TemporaryDirectory(prefix="bench-hostile-") as folder:
        for count in (0, 33_000):
            found = answers_beside_idle(Path(folder) / str(count), count)
            print(f"| {count:,} | {found.median_ms:.1f} | {found.worst_ms:.1f} |", flush=True)


@contextmanager
def _running(server: servers.Server, *, tls: bool = True) -> Iterator[servers.Running]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-hostile-") as folder,
        servers.running(server, Path(folder), tls=tls) as relay,
    ):
        yield relay


_TABLES: dict[str, tuple[Callable[[], None], str]] = {
    "crowd": (crowd, "| relay | failed attempts of 600 clients | the last one is in after s |"),
    "malformed": (
        malformed,
        "| relay | bad requests a second | 99.9 % of packets within ms | worst ms |",
    ),
    "questions": (questions, "| relay | at once in all | of one network | strangers |"),
    "idle": (idle, "| idle connections of one address | others: median ms | worst ms |"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.hostile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("which", nargs="*", choices=_TABLES, default=list(_TABLES))
    for name in parser.parse_args().which:
        run, head = _TABLES[name]
        print(f"{head}\n|{' --- |' * (head.count('|') - 1)}", flush=True)
        run()
        print()


if __name__ == "__main__":
    main()
