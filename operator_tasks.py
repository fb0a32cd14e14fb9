"""The verbs for the operator's own side: signatures and help. `tasks.py` adds them to its own."""
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from pathlib import Path

from invoke import Context

from fleet.shared.opening import FILE, HOST, HOSTS, JSON, task, with_site


@task(
    help={
        "site": FILE,
        "json": JSON + ", with --push",
        "push": "put the proved relays into the map of the site's control server instead",
        "diff": "with --push: show the change as a diff",
    }
)
def derpmap(_: Context, site="", push=False, diff=False, json=False):
    """Print the regions as JSON for a Tailscale policy file; on standard error, where to paste it.

    With --push, they are put into the map of headscale, or into the policy of the tailnet, as a
    deploy does it.

    Examples:
      invoke derpmap > derpmap.json
      invoke derpmap --push --diff

    Exit codes: 0 done, 1 no relay is proved or the map was not changed, 3 the control server is
    unreachable, 4 site file wrong.
    """
    from fleet import derpmap as verb

    if push:
        with_site(site, verb.push, json=json, diffs=diff)
    else:
        with_site(site, verb.derpmap, aside=True)


@task(
    iterable=["host", "take"],
    help=HOSTS
    | {"take": "a region for the map by its code, as fra; may be given several times; none: no region"}
    | {"from": "an https URL or a file with the map (default: Tailscale's own)"},
)
def official(_: Context, host=None, take=None, from_="", site="", json=False):
    """Show Tailscale's own regions and how far they are, from here and from each host.

    --take pins a choice beside the site file, as the regions are now. A deploy puts them into the
    map where clients have not all of them, and takes others of them out. It fetches nothing.

    Examples:
      invoke official
      invoke official --take fra --take tok

    Exit codes: 0 shown or taken, 1 the map cannot be had or has no such region, 3 a host is
    unreachable, 4 site file wrong.
    """
    from fleet.official import official as verb

    with_site(site, lambda f: verb(f, f.managed(host), take=take or (), source=from_), json=json)


@task(
    iterable=["host"],
    help={
        "host": HOST + "; `headscale` names the headscale host",
        "site": FILE,
        "replace": "accept a key that differs from the pinned one: for a reinstalled host",
        "fingerprint": "accept exactly this key (SHA256:…) without asking",
    },
)
def trust(_: Context, host=None, site="", replace=False, fingerprint=""):
    """Show a host's key, ask, and pin it. No other command accepts a host key that is not pinned.

    Example: invoke trust --host headscale --fingerprint SHA256:…
    """
    from fleet.trust import trust_hosts as verb

    with_site(site, lambda fleet: verb(fleet, host, replace=replace, expected=fingerprint))


@task(
    help=HOSTS
    | {"host": "a host of the site, or `headscale`", "relay": "show the relay's own log, not the last run"}
    | {"lines": "with --relay: how many lines to show (default: 50)"}
)
def logs(_: Context, host, site="", relay=False, lines="50", json=False):
    """Show the events of the last run, or with --relay the relay's own log.

    Example: invoke logs --host hk1 --relay
    """
    from fleet.logs import logs as verb

    with_site(site, lambda fleet: verb(fleet, host, relay=relay, lines=lines), json=json)


@task(
    iterable=["host"],
    help=HOSTS | {"html": "also write a self-contained HTML page to this file"}
    | {"textfile": "also write metrics to this file, for node_exporter's textfile collector"}
    | {"targets": "also write the relays with metrics.allow to this file, for Prometheus' file_sd_configs"}
    | {"notify": "also tell the webhook of the site file when a relay breaks, and when it is back"},
)
def status(_: Context, host=None, site="", html="", textfile="", targets="", notify=False, json=False):
    """Show a table of the hosts: flavour, version, proof, certificate days, clients, last deploy.

    Examples:
      invoke status --html status.html --targets /etc/prometheus/derpfleet.json
      invoke status --textfile /var/lib/node_exporter/derpfleet.prom --notify

    Exit codes: 0 every host is proved, withdrawn or drained, 1 one is not, 4 site file wrong.
    """
    from fleet.status import status as verb

    given = {"html": html, "textfile": textfile, "targets_file": targets}
    places = {name: Path(path) for name, path in given.items() if path}
    with_site(site, lambda f: verb(f, f.hosts(host), **places, alert=notify), json=json)


@task(iterable=["host"], help=HOSTS)
def history(_: Context, host=None, site="", json=False):
    """Show the confirmed states of hosts: number, time, verb, who, release, changes, proof.

    Below them, since when each relay is proved or broken, of the proofs that were made from here in
    90 days.

    Example: invoke history --host hk1

    Exit codes: 0 shown, 3 unreachable, 4 site file wrong.
    """
    from fleet.history import history as verb

    with_site(site, lambda f: verb(f, f.hosts(host)), json=json)


@task(
    iterable=["host"],
    help=HOSTS | {
        "out": "make a bundle: write it to this file",
        "use": "use a bundle: check this file, and take what is in it",
        "sha256": "with --use: refuse a file with another SHA-256 than --out printed",
    },
)
def bundle(_: Context, host=None, site="", out="", use="", sha256="", json=False):
    """Take what a deploy would fetch to a controller without a network, in one file.

    With --out the hosts are asked what they are, so they have to be reachable. For a host that is
    not, name another one of the same release, architecture and settings. DERPFLEET_OFFLINE=1 then
    makes sure that a deploy fetches nothing.

    Examples:
      invoke bundle --out derpfleet.bundle
      invoke bundle --use derpfleet.bundle
      DERPFLEET_OFFLINE=1 invoke deploy --host hk1

    Exit codes: 0 written or taken, 1 something could not be fetched, or the bundle is refused,
    3 unreachable, 4 site file wrong.
    """
    from fleet.bundle import bundle as verb

    files = {"out": out, "use": use, "sha256": sha256}
    with_site(site, lambda fleet: verb(fleet, fleet.managed(host), **files), json=json)


verbs = (bundle, status, history, derpmap, official, trust, logs)
