"""Measure our relay and derper: `python -m bench.relay [--only NAME] [--runs 5] [--seconds 5]`."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.relay import generator, report, servers
from bench.relay.regimes import REGIMES, Regime, before, beside_before

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    names = [regime.name for regime in REGIMES]
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="REGIME",
        help=f"one of {', '.join(names)}; may be repeated",
    )
    parser.add_argument(
        "--servers",
        default="derper,relay,two-workers",
        help="servers to run, where a regime has them (default %(default)s)",
    )
    parser.add_argument(
        "--before",
        type=Path,
        metavar="CHECKOUT",
        help="compare with the relay of another checkout, e.g. of an older commit",
    )
    parser.add_argument(
        "--runs", type=int, default=5, help="alternating runs of each server (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=5, help="length of a timed window (default %(default)s)"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1,
        help="part of the counted work: connections, handshakes (default %(default)s)",
    )
    parser.add_argument(
        "--python",
        default=servers.hosts_python(),
        help="the Python that runs our relay (default %(default)s)",
    )
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--generator-cpu", type=int, default=1)
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="SCHED_FIFO for server and generator: for a machine with other load",
    )
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(".cache/bench-relay.json"),
        help="file for the readings (default %(default)s)",
    )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    loadgen = generator.build()
    if options.realtime:
        # Every program that is started from here inherits it. The compiler does not: its threads
        # would starve each other.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    known = {
        "relay": servers.relay(python=options.python),
        "two-workers": servers.relay(name="two-workers", workers=2, python=options.python),
    }
    regimes = [regime for regime in REGIMES if not options.only or regime.name in options.only]
    if options.before:
        known |= {before(name): servers.of_checkout(server, options.before) for name, server in known.items()}
        regimes = [beside_before(regime) for regime in regimes]
        chosen = list(known)
    else:
        known["derper"] = servers.derper(generator.build_derper())
        chosen = options.servers.split(",")
    results: dict[str, dict[str, list[generator.Run]]] = {}
    for regime in regimes:
        for turn in range(options.runs):
            for name in [name for name in regime.sides if name in chosen]:
                print(f"{regime.name}: run {turn + 1} of {options.runs}, {name}", file=sys.stderr, flush=True)
                run = one(regime, known[name], loadgen, options)
                results.setdefault(regime.name, {}).setdefault(name, []).append(run)
    about = {
        "when": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "runs": options.runs,
        "seconds": options.seconds,
        "scale": options.scale,
        "realtime": options.realtime,
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        **_versions(options.python),
        "load_average": os.getloadavg(),
    }
    options.json.write_text(json.dumps(report.record(regimes, results, about), indent=1) + "\n")
    text = f"{report.conditions(about)}\n\n{report.table(regimes, results)}"
    print(text)
    if options.readme:
        report.insert(HERE / "README.md", text)
    return 0


def _versions(python: str) -> dict[str, str]:
    """Return the versions that our relay runs on."""
    program = (
        "import json, platform, ssl; print(json.dumps({'python': "
        "platform.python_version(), 'openssl': ssl.OPENSSL_VERSION}))"
    )
    versions: dict[str, str] = json.loads(
        subprocess.run([python, "-c", program], capture_output=True, check=True).stdout
    )
    return {**versions, "python_path": python}


def one(regime: Regime, server: servers.Server, loadgen: Path, options: argparse.Namespace) -> generator.Run:
    """Do one run against a server started for it."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-relay-") as folder,
        servers.running(server, Path(folder), cpu=options.server_cpu) as target,
    ):
        return generator.run(
            loadgen,
            regime.argv(options.seconds, options.scale),
            target,
            options.generator_cpu,
            timeout_s=600 * max(options.scale, 0.1),
        )


if __name__ == "__main__":
    sys.exit(main())
