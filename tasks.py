"""The verbs: signatures and help. Each imports what it needs, so that `invoke --list` is quick."""
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from fleet.shared import interrupt

interrupt.leave_at_once()
# ruff: noqa: E402  (Ctrl-C comes first)
import os
from functools import partial
from pathlib import Path

from invoke import Context

import lab_tasks
import operator_tasks
import rollout_tasks
import service_tasks
from fleet.shared.opening import DEFAULT_SITE, FILE, HOSTS, collected, task, with_report, with_site

ONLY = "a resource id, or role:NAME; may be given several times"


@task(
    iterable=["host", "only"],
    help=HOSTS
    | {"only": ONLY, "dry-run": "show changes, make none", "diff": "show each change as a diff"}
    | {"include-withdrawn": "without --host: bring withdrawn and drained relays back as well"}
    | {"keep": "leave a relay that is not proved as it is, to be looked at"},
)
def deploy(
    _: Context,
    host=None, site="", only=None, dry_run=False, diff=False, include_withdrawn=False, keep=False, json=False,
):
    """Turn hosts into relays, prove them from outside, register them.

    A host that is not proved goes back to its last confirmed state, and is proved again.

    Without --host, all hosts are deployed in order, up to the first that fails or is not proved.
    Withdrawn and drained relays stay so, unless --host names them or --include-withdrawn is given.
    With --only, nothing is registered, and the next whole deploy confirms the changes. If a service
    that --only leaves out has to be restarted, the next deploy that includes it does that.

    Examples:
      invoke deploy --host hk1
      invoke deploy --host hk1 --only role:nginx --diff
      invoke deploy --dry-run

    Exit codes: 0 deployed and proved, 1 a resource or a proof failed, 3 unreachable,
    4 site file wrong, 5 host locked, 7 not proved and back as it was, 8 not back, 6 undecided:
    back, as our own line may be at fault. With --dry-run: 10 something would change, as in check.
    """
    from fleet.check import check as compare
    from fleet.deploy import deploy as apply

    withdrawn = include_withdrawn or bool(host)
    verb = partial(compare if dry_run else partial(apply, keep=keep), only=only, include_withdrawn=withdrawn)
    with_site(site, lambda f: verb(f, f.equipped(host, resolve=True)), json=json, diffs=diff or dry_run)


@task(iterable=["host", "only"], help=HOSTS | {"only": ONLY})
def check(_: Context, host=None, site="", only=None, json=False):
    """Connect, change nothing, and print a unified diff of the changes that a deploy would make.

    Example: invoke check --host hk1 --only role:nginx

    Exit codes: 0 no change, 10 changes found, 3 unreachable, 4 site file wrong, 5 host locked.
    """
    from fleet.check import check as verb

    named = bool(host)
    with_site(
        site,
        lambda f: verb(f, f.equipped(host, resolve=True), only=only, include_withdrawn=named),
        json=json,
        diffs=True,
    )


@task(
    iterable=["host"],
    help=HOSTS
    | {
        "address": "prove any DERP server instead: relay.example.org, or relay.example.org:3489",
        "ca": "with --address: a PEM file to trust besides the system's roots",
        "pin": "with --address: the SHA-256 of the relay's one certificate, in lower-case hex",
        "stun-port": "with --address: the UDP port of its STUN, 0 if it has none (default: 3478)",
        "thorough": "also hold an idle connection for 70 s, longer than the time-out of usual proxies",
    },
)
def verify(
    _: Context, host=None, site="", address="", ca="", pin="", stun_port="", thorough=False, json=False
):
    """Prove from outside that packets pass: name, TCP, STUN, TLS, upgrade, handshake, two clients.

    For the first check that fails, the output names the cause and the next command.

    Examples:
      invoke verify --host hk1 --thorough
      invoke verify --address relay.example.org:443 --stun-port 3479

    Exit codes: 0 proved, 1 not proved, 4 site file wrong.
    """
    from fleet import verify as verb

    options = {"thorough": thorough, "ca": ca, "pin": pin, "stun_port": stun_port}
    if address:
        with_report(lambda report: verb.verify_address(report, address, host, **options), json=json)
    else:
        with_site(site, lambda fleet: verb.verify_hosts(fleet, host, **options), json=json)


@task(
    iterable=["host"],
    help=HOSTS | {"before": "before the first deploy: ask for nothing that a deploy sets up"},
)
def doctor(_: Context, host=None, site="", before=False, json=False):
    """Look for everything that is wrong or will be: here, in the site, on the hosts, from outside.

    It changes nothing. Each line says what is wrong, why, and what to do next. It looks at this
    controller, the names, the hosts' refusals and warnings, clocks, certificates and the map.

    Examples:
      invoke doctor
      invoke doctor --host hk1 --before

    Exit codes: 0 nothing is wrong, 1 something is, 3 a host is unreachable, 4 site file wrong.
    """
    from fleet.doctor import doctor as verb

    with_site(site, lambda f: verb(f, f.hosts(host), before=before), json=json)


@task(iterable=["host"], help=HOSTS | {"force": "renew even if it is not overdue"})
def renew(_: Context, host=None, site="", force=False, json=False):
    """Renew overdue certificates now, and prove that the new ones are served.

    Example: invoke renew --host hk1 --force

    The certificate of a withdrawn or drained relay is renewed, too, but not proved.

    Exit codes: 0 renewed or not overdue, and proved or out of service; 1 not renewed or not proved,
    3 unreachable, 4 site file wrong, 5 host locked.
    """
    from fleet.renew import renew as verb

    with_site(site, lambda fleet: verb(fleet, fleet.equipped(host), force=force), json=json)


@task(
    help={"path": f"where to write it (default: --site, then $DERPFLEET_SITE, then {DEFAULT_SITE})"}
    | {"site": f"with --timer: {FILE}"}
    | {"from": "make its hosts of the map in this file: a Tailscale policy, a derpmap, headscale's derp.yaml"}
    | {"timer": "write a systemd timer of your user that runs `invoke status --notify` every 5 minutes"}
    | {"textfile": "with --timer: also write metrics to this file"}
)
def init(_: Context, path="", from_="", timer=False, site="", textfile=""):
    """Write a commented first site file, or with --timer a timer. Never overwrites one.

    With --from, the relays that you have become its hosts. What is still to be filled in is listed,
    and regions that cannot be hosts stay as comments, with the reason.

    Examples:
      invoke init --path elsewhere.yml
      invoke init --from /etc/headscale/derp.yaml
      invoke init --timer --textfile /var/lib/node_exporter/derpfleet.prom

    Exit codes: 0 written, 1 there is no map in that file, 4 the site file exists already.
    """
    from fleet.init import init as verb
    from fleet.init.timer import write_timer

    place = path or site or os.environ.get("DERPFLEET_SITE", "")
    paths = [Path(one) if one else None for one in (place, from_)]
    with_report(
        lambda report: write_timer(report, site, textfile) if timer else verb(report, *paths)
    )


others = (*rollout_tasks.verbs, *service_tasks.verbs, *operator_tasks.verbs)
verbs = (init, deploy, check, verify, doctor, renew, *others)
namespace = collected(verbs, lab_tasks.lab)
