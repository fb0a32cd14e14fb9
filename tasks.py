"""The verbs. Each names what `fleet` or `lab` does; imports happen when a verb is called, so that `invoke --list` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Collection, Context, Exit, task

from fleet.shared import interrupt

if TYPE_CHECKING:
    from fleet.shared.fleet import Fleet

interrupt.leave_at_once()

SITE = "inventory/site.yml"
HOST = "one host of the site, may be given several times (default: all, in the order of the file)"
ONLY = "a resource id, or role:NAME; may be given several times"
FILE = f"the site file (default: $DERPFLEET_SITE, then {SITE}, then the lab's)"
JSON = "JSON lines on standard output, for machines"


def _number(text: str, option: str, *, most: int) -> int:
    """A number that a person typed, 0 to `most`. Raises DerpfleetError."""
    from inventory.errors import DerpfleetError

    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= most):
        raise DerpfleetError(f"{option} takes a number up to {most}, not {text!r}")
    return int(text)


def _refuse(reason: str, given: Mapping[str, object]) -> None:
    """Options that would be passed over in silence. Raises DerpfleetError."""
    from inventory.errors import DerpfleetError

    for option, value in given.items():
        if value:
            raise DerpfleetError(f"{option} {reason}")


def _refuse_bare(words: Sequence[str]) -> None:
    """An option without its value, as `--host $HOST` is when HOST is empty, would pass for all hosts. Raises DerpfleetError."""
    from inventory.errors import DerpfleetError

    for word, following in pairwise([*words, "-"]):
        bare = word in ("--host", "-h", "--only", "-o") and following.startswith("-")
        if bare or (word.startswith("-") and not following) or (word.startswith("--") and word.endswith("=")):
            option = word.rstrip("=")
            raise DerpfleetError(
                f"{option} needs a value", why="without one it would be as if it had not been given", next=f"give one, or no {option}"
            )


@contextmanager
def _reporting(*, json: bool = False, diffs: bool = False, aside: bool = False) -> Iterator[Any]:
    """A report; a DerpfleetError inside becomes its words and its exit code. `aside`: on standard error, the other being the verb's own."""
    from rich.console import Console

    from engine.report import Report
    from inventory.errors import DerpfleetError

    console = Console(stderr=True, highlight=False, soft_wrap=True) if aside else None
    report = Report(json_lines=json, diffs=diffs, console=console)
    try:
        with interrupt.raised(), report:
            _refuse_bare(sys.argv[1:])
            yield report
    except DerpfleetError as error:
        report.failure(error)
        raise Exit(code=error.exit_code) from None
    except KeyboardInterrupt:
        report.say("interrupted")
        raise Exit(code=interrupt.CODE) from None


@contextmanager
def _fleet(site: str, *, json: bool = False, diffs: bool = False, aside: bool = False) -> Iterator[Fleet]:
    """The loaded site with its report."""
    import inventory
    from fleet.shared import site_choice
    from fleet.shared.fleet import Fleet

    path = site_choice.chosen(site or os.environ.get("DERPFLEET_SITE", ""))
    site_choice.enter_network_of(path)
    with _reporting(json=json, diffs=diffs, aside=aside) as report:
        if path == site_choice.SITE:
            report.say(f"In the lab: {os.path.relpath(path)}, as there is no {SITE} and none was given")
        yield Fleet(inventory.load(path), report)


def _end(code: int) -> None:
    if code:
        raise Exit(code=code)


@task(
    iterable=["host", "only"],
    help={
        "host": HOST,
        "site": FILE,
        "only": ONLY,
        "dry-run": "change nothing, show what would change",
        "diff": "show each change as a diff",
        "json": JSON,
    },
)
def deploy(_: Context, host=None, site="", only=None, dry_run=False, diff=False, json=False):  # type: ignore[no-untyped-def]
    """Make hosts be relays, prove them from outside, register them.

    Without --host: all hosts in order, stopping at the first that is not proved. With --only, nothing is registered,
    and services left out get the restarts that they are owed from the next deploy that has them.

    Examples:
      invoke deploy --host hk1
      invoke deploy --host hk1 --only role:nginx --diff
      invoke deploy --dry-run

    Exit codes: 0 converged and proved, 1 a resource or a proof failed, 3 unreachable, 4 site file wrong, 5 host locked;
    with --dry-run as those of check: 10 something would change.
    """
    from fleet.check import check as compare
    from fleet.deploy import deploy as apply

    with _fleet(site, json=json, diffs=diff or dry_run) as fleet:
        act = compare if dry_run else apply
        _end(act(fleet, fleet.equipped(host or (), resolve=True), only=only or ()))


@task(iterable=["host", "only"], help={"host": HOST, "site": FILE, "only": ONLY, "json": JSON})
def check(_: Context, host=None, site="", only=None, json=False):  # type: ignore[no-untyped-def]
    """Connect, change nothing, print a unified diff of what a deploy would change.

    Examples:
      invoke check
      invoke check --host hk1 --only role:nginx

    Exit codes: 0 nothing would change, 10 something would, 3 unreachable, 4 site file wrong, 5 host locked.
    """
    from fleet import check as verb

    with _fleet(site, json=json, diffs=True) as fleet:
        _end(verb.check(fleet, fleet.equipped(host or (), resolve=True), only=only or ()))


@task(
    iterable=["host"],
    help={
        "host": HOST,
        "site": FILE,
        "address": "any DERP server instead: relay.example.org, or relay.example.org:3489",
        "ca": "a PEM file to trust besides the system's roots, with --address",
        "pin": "lower-case hex sha256 of the relay's one certificate, with --address",
        "stun-port": "UDP port of its STUN, 0 when it offers none, with --address (default: 3478)",
        "thorough": "also hold an idle connection past a proxy's time-out (70 s)",
        "json": JSON,
    },
)
def verify(_: Context, host=None, site="", address="", ca="", pin="", stun_port="", thorough=False, json=False):  # type: ignore[no-untyped-def]
    """Prove from outside that packets pass: name, TCP, STUN, TLS, upgrade, handshake, two clients.

    The ladder names the first broken rung, its cause and the next command.

    Examples:
      invoke verify --host hk1 --thorough
      invoke verify --address relay.example.org:443 --stun-port 3479

    Exit codes: 0 proved, 1 not proved, 4 site file wrong.
    """
    from fleet import verify as verb

    if address:
        from probe.target import Target

        with _reporting(json=json) as report:
            _refuse("names a host of the site, --address any other server: give one of them", {"--host": host})
            stun = _number(stun_port or "3478", "--stun-port", most=65535)
            target = Target.from_address(address, stun_port=stun or None, ca=Path(ca) if ca else None, pin=pin or None)
            _end(verb.verify_address(report, target, thorough=thorough))
        return
    with _fleet(site, json=json) as fleet:
        _refuse("goes with --address: the site file says it of its hosts", {"--ca": ca, "--pin": pin, "--stun-port": stun_port})
        _end(verb.verify_hosts(fleet, fleet.hosts(host or ()), thorough=thorough))


@task(iterable=["host"], help={"host": HOST, "site": FILE, "html": "also write one self-contained page to this file", "json": JSON})
def status(_: Context, host=None, site="", html="", json=False):  # type: ignore[no-untyped-def]
    """A table: host, flavour, version, proof, certificate days, clients, last deploy.

    Examples:
      invoke status
      invoke status --html status.html

    Exit codes: 0 every host is proved, or withdrawn; 1 one is not, 4 site file wrong.
    """
    from fleet import status as verb

    with _fleet(site, json=json) as fleet:
        _end(verb.status(fleet, fleet.hosts(host or ()), html=Path(html) if html else None))


@task(iterable=["host"], help={"host": HOST, "site": FILE, "force": "renew even if it is not due", "json": JSON})
def renew(_: Context, host=None, site="", force=False, json=False):  # type: ignore[no-untyped-def]
    """Renew certificates now, as the timer would, and prove that the new one is served.

    Example: invoke renew --host hk1 --force

    Of a withdrawn relay the certificate is renewed, too; there is nothing to prove then.

    Exit codes: 0 renewed or not due, and proved or withdrawn; 1 not renewed or not proved, 3 unreachable, 4 site file wrong, 5 host locked.
    """
    from fleet import renew as verb

    with _fleet(site, json=json) as fleet:
        _end(verb.renew(fleet, fleet.equipped(host or ()), force=force))


@task(help={"host": "the host", "site": FILE, "json": JSON})
def withdraw(_: Context, host, site="", json=False):  # type: ignore[no-untyped-def]
    """Take a relay out of service so that no client is cut off: stop it, see every node move, take its regions out of the map.

    Also the way to give up a former region id. Needs another proved relay in the map. A deploy brings the relay back.

    Example: invoke withdraw --host sg1

    Exit codes: 0 withdrawn, 1 it is the only relay or nodes did not move, 3 unreachable, 4 site file wrong, 5 host locked.
    """
    from fleet import withdraw as verb

    with _fleet(site, json=json) as fleet:
        _end(verb.withdraw(fleet, fleet.equipped([host])[0]))


@task(help={"site": FILE})
def derpmap(_: Context, site=""):  # type: ignore[no-untyped-def]
    """Print the regions as JSON for a Tailscale policy file, and on standard error where to paste it.

    Example: invoke derpmap > derpmap.json
    """
    import json

    from control import derpmap as pure
    from fleet.shared import pins
    from fleet.shared.prove import was_proved

    with _fleet(site, aside=True) as fleet:
        told = pins.known(fleet, fleet.hosts(()))
        for host in fleet.hosts(()):
            if not was_proved(fleet, host):
                fleet.report.line(host.name, "warning", f"not proved: before you paste its region, invoke deploy --host {host.name}")
        print(json.dumps(pure.derpmap(fleet.site, pins=told), indent=2))
        print(pure.instructions(fleet.site, pins=told), file=sys.stderr)


@task(
    iterable=["host"],
    help={
        "host": HOST + "; `headscale` is the headscale host",
        "site": FILE,
        "replace": "accept a key that differs from the pinned one",
        "fingerprint": "accept exactly this key (SHA256:…) without asking",
    },
)
def trust(_: Context, host=None, site="", replace=False, fingerprint=""):  # type: ignore[no-untyped-def]
    """Show a host's key, ask, and pin it. Nothing else ever learns a host key.

    Examples:
      invoke trust --host hk1
      invoke trust --host headscale --fingerprint SHA256:…
    """
    from fleet import trust as verb

    with _fleet(site) as fleet:
        _end(1 if verb.trust(fleet, verb.logins(fleet, host or ()), replace=replace, expected=fingerprint, confirm=verb.ask_person) else 0)


@task(
    help={
        "host": "a host of the site, or `headscale`",
        "site": FILE,
        "relay": "the relay's own log instead of the last run's",
        "lines": "how many lines of the relay's own (default: 50)",
        "json": JSON,
    }
)
def logs(_: Context, host, site="", relay=False, lines="50", json=False):  # type: ignore[no-untyped-def]
    """The last run's events, or with --relay what the relay itself says.

    Example: invoke logs --host hk1 --relay
    """
    from fleet import logs as verb
    from inventory.rules import HEADSCALE

    with _fleet(site, json=json) as fleet:
        if relay:
            _refuse("runs no relay: without --relay, its last run", {f"--host {host}": host == HEADSCALE})
            verb.show_relay_log(fleet, fleet.equipped([host])[0], lines=_number(lines, "--lines", most=1_000_000))
        else:
            verb.show_last_run(fleet, host)


@task(help={"path": f"where to write it (default: {SITE})"})
def init(_: Context, path=""):  # type: ignore[no-untyped-def]
    """Write a commented first site file. Never overwrites one.

    Example: invoke init --path elsewhere.yml
    """
    from fleet import init as verb
    from fleet.shared import site_choice

    with _reporting() as report:
        verb.init(report, Path(path or os.path.relpath(site_choice.OWN)))


@task(name="up")
def lab_up(_: Context):  # type: ignore[no-untyped-def]
    """Bring the lab up: two bare relay hosts, headscale, an ACME server, DNS, three sites with real clients."""
    from fleet import lab as verb

    with _reporting() as report:
        verb.up(report)


@task(name="down")
def lab_down(_: Context):  # type: ignore[no-untyped-def]
    """Take down what this checkout's lab made, and nothing else."""
    from fleet import lab as verb

    with _reporting() as report:
        verb.down(report)


@task(name="status")
def lab_status(_: Context):  # type: ignore[no-untyped-def]
    """What of the lab runs."""
    from fleet import lab as verb

    with _reporting() as report:
        verb.status(report)


@task(name="shell", help={"host": "hk1, sg1, hs1, site-a, …; without: the lab's network namespace"})
def lab_shell(context: Context, host=""):  # type: ignore[no-untyped-def]
    """A shell inside the lab: on a host, at a client's site, or just in its network.

    Example: invoke lab.shell --host hk1
    """
    from fleet import lab as verb

    with _reporting() as report:
        verb.shell(report, host)


lab = Collection("lab", lab_up, lab_down, lab_status, lab_shell)
namespace = Collection(deploy, check, verify, status, renew, withdraw, derpmap, trust, logs, init, lab)
