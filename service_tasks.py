"""The verbs that take a relay out of service, and off its host. `tasks.py` adds them to its own."""
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from invoke import Context

from fleet.shared.opening import FILE, JSON, task, with_site


@task(help={"host": "the host", "site": FILE, "json": JSON})
def withdraw(_: Context, host, site="", json=False):
    """Take a relay out of service: stop it, and take its region out of the map afterwards.

    The relay is stopped; when every node has moved, its regions are taken out of the map. Another
    proved relay has to be in the map. A deploy brings the relay back. After a change of its region
    id, withdraw and deploy the host: that takes the former region out of the map.

    Example: invoke withdraw --host sg1

    Exit codes: 0 withdrawn, 1 it is the only relay or nodes did not move, 3 unreachable,
    4 site file wrong, 5 host locked.
    """
    from fleet.withdraw import withdraw as verb

    with_site(site, lambda fleet: verb(fleet, fleet.equipped([host])[0]), json=json)


@task(
    help={"host": "the host", "site": FILE, "json": JSON}
    | {"back": "bring the relay back as it was confirmed last, and prove it"}
    | {"force": "with --back: overwrite files that were edited by hand since"}
)
def drain(_: Context, host, back=False, force=False, site="", json=False):
    """Stop a relay for work on its host, such as a reboot. Its region stays in the map.

    Another relay has to be proved. The relay is stopped whole, so that its nodes move: a client is
    without traffic for some 6.5 s. For a new release there is no need to drain: a deploy restarts
    the relay in less. --back sends nothing to the host, and stops a relay again that is not proved.
    A deploy of that host brings the relay back as well, as the site file has it.

    Examples:
      invoke drain --host hk1
      invoke drain --host hk1 --back

    Exit codes: 0 drained, or back and proved; 1 it is the only relay, nodes did not move, or it is
    not proved; 3 unreachable, 4 site file wrong, 5 host locked.
    """
    from fleet import drain as verb
    from fleet.shared.options import refuse

    def work(fleet):
        [one] = fleet.managed([host])
        if back:
            return verb.bring_back(fleet, one, force=force)
        refuse("goes with --back", {"--force": force})
        return verb.drain(fleet, one)

    with_site(site, work, json=json)


@task(
    help={"host": "the host", "site": FILE, "json": JSON}
    | {"dry-run": "show what would go, and change nothing", "diff": "show each change as a diff"}
    | {"in-service": "also a relay that clients may use; its region stays in the map"},
)
def uninstall(_: Context, host, site="", dry_run=False, in_service=False, diff=False, json=False):
    """Remove everything of derpfleet from a host whose relay was withdrawn.

    Packages and other people's things stay; what was changed of these is put back as it was found.

    The only relay of a site cannot be withdrawn: --in-service removes it, and cuts its clients off.

    Examples:
      invoke uninstall --host sg1 --dry-run
      invoke uninstall --host sg1 --in-service

    Exit codes: 0 removed, 1 it is in service or a resource failed, 3 unreachable, 4 site file
    wrong, 5 host locked. With --dry-run: 10 something would be removed.
    """
    from fleet.uninstall import uninstall as verb

    diffs = diff or dry_run

    def work(fleet):
        return verb(fleet, fleet.managed([host])[0], dry_run=dry_run, in_service=in_service)

    with_site(site, work, json=json, diffs=diffs)


verbs = (withdraw, drain, uninstall)
