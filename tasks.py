"""The verbs: signatures and help. Each calls what `fleet` does; imports wait for their verb, so that `invoke --list` is quick."""

from __future__ import annotations

from pathlib import Path

from invoke import Collection, Context, task

import lab_tasks
from fleet.shared import interrupt
from fleet.shared.opening import DEFAULT_SITE, with_report, with_site

interrupt.leave_at_once()

HOST = "one host of the site, may be given several times (default: all, in the order of the file)"
ONLY = "a resource id, or role:NAME; may be given several times"
FILE = f"the site file (default: $DERPFLEET_SITE, then {DEFAULT_SITE}, then the lab's)"
JSON = "JSON lines on standard output, for machines"
HOSTS = {"host": HOST, "site": FILE, "json": JSON}


@task(
    iterable=["host", "only"],
    help=HOSTS | {"only": ONLY, "dry-run": "change nothing, show what would change", "diff": "show each change as a diff"},
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

    verb = compare if dry_run else apply
    with_site(site, lambda f: verb(f, f.equipped(host or (), resolve=True), only=only or ()), json=json, diffs=diff or dry_run)


@task(iterable=["host", "only"], help=HOSTS | {"only": ONLY})
def check(_: Context, host=None, site="", only=None, json=False):  # type: ignore[no-untyped-def]
    """Connect, change nothing, print a unified diff of what a deploy would change.

    Examples:
      invoke check
      invoke check --host hk1 --only role:nginx

    Exit codes: 0 nothing would change, 10 something would, 3 unreachable, 4 site file wrong, 5 host locked.
    """
    from fleet.check import check as verb

    with_site(site, lambda f: verb(f, f.equipped(host or (), resolve=True), only=only or ()), json=json, diffs=True)


@task(
    iterable=["host"],
    help=HOSTS
    | {
        "address": "any DERP server instead: relay.example.org, or relay.example.org:3489",
        "ca": "a PEM file to trust besides the system's roots, with --address",
        "pin": "lower-case hex sha256 of the relay's one certificate, with --address",
        "stun-port": "UDP port of its STUN, 0 when it offers none, with --address (default: 3478)",
        "thorough": "also hold an idle connection past a proxy's time-out (70 s)",
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

    outside = {"ca": ca, "pin": pin, "stun_port": stun_port}
    if address:
        with_report(lambda report: verb.verify_address(report, address, host or (), thorough=thorough, **outside), json=json)
    else:
        with_site(site, lambda f: verb.verify_hosts(f, host or (), thorough=thorough, **outside), json=json)


@task(iterable=["host"], help=HOSTS | {"html": "also write one self-contained page to this file"})
def status(_: Context, host=None, site="", html="", json=False):  # type: ignore[no-untyped-def]
    """A table: host, flavour, version, proof, certificate days, clients, last deploy.

    Examples:
      invoke status
      invoke status --html status.html

    Exit codes: 0 every host is proved, or withdrawn; 1 one is not, 4 site file wrong.
    """
    from fleet.status import status as verb

    with_site(site, lambda f: verb(f, f.hosts(host or ()), html=Path(html) if html else None), json=json)


@task(iterable=["host"], help=HOSTS | {"force": "renew even if it is not due"})
def renew(_: Context, host=None, site="", force=False, json=False):  # type: ignore[no-untyped-def]
    """Renew certificates now, as the timer would, and prove that the new one is served.

    Example: invoke renew --host hk1 --force

    Of a withdrawn relay the certificate is renewed, too; there is nothing to prove then.

    Exit codes: 0 renewed or not due, and proved or withdrawn; 1 not renewed or not proved, 3 unreachable, 4 site file wrong, 5 host locked.
    """
    from fleet.renew import renew as verb

    with_site(site, lambda f: verb(f, f.equipped(host or ()), force=force), json=json)


@task(help={"host": "the host", "site": FILE, "json": JSON})
def withdraw(_: Context, host, site="", json=False):  # type: ignore[no-untyped-def]
    """Take a relay out of service so that no client is cut off: stop it, see every node move, take its regions out of the map.

    Also the way to give up a former region id. Needs another proved relay in the map. A deploy brings the relay back.

    Example: invoke withdraw --host sg1

    Exit codes: 0 withdrawn, 1 it is the only relay or nodes did not move, 3 unreachable, 4 site file wrong, 5 host locked.
    """
    from fleet.withdraw import withdraw as verb

    with_site(site, lambda f: verb(f, f.equipped([host])[0]), json=json)


@task(help={"site": FILE})
def derpmap(_: Context, site=""):  # type: ignore[no-untyped-def]
    """Print the regions as JSON for a Tailscale policy file, and on standard error where to paste it.

    Example: invoke derpmap > derpmap.json
    """
    from fleet.derpmap import derpmap as verb

    with_site(site, verb, aside=True)


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
    from fleet.trust import trust_hosts as verb

    with_site(site, lambda f: verb(f, host or (), replace=replace, expected=fingerprint))


@task(
    help=HOSTS
    | {
        "host": "a host of the site, or `headscale`",
        "relay": "the relay's own log instead of the last run's",
        "lines": "how many lines of the relay's own (default: 50)",
    }
)
def logs(_: Context, host, site="", relay=False, lines="50", json=False):  # type: ignore[no-untyped-def]
    """The last run's events, or with --relay what the relay itself says.

    Example: invoke logs --host hk1 --relay
    """
    from fleet.logs import logs as verb

    with_site(site, lambda f: verb(f, host, relay=relay, lines=lines), json=json)


@task(help={"path": f"where to write it (default: {DEFAULT_SITE})"})
def init(_: Context, path=""):  # type: ignore[no-untyped-def]
    """Write a commented first site file. Never overwrites one.

    Example: invoke init --path elsewhere.yml
    """
    from fleet.init import init as verb

    with_report(lambda report: verb(report, Path(path) if path else None))


namespace = Collection(deploy, check, verify, status, renew, withdraw, derpmap, trust, logs, init, lab_tasks.lab)
