"""The lab's verbs, `invoke lab.*`: signatures and help. `tasks.py` adds them to its own."""
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from invoke import Collection, Context

from fleet.shared.opening import task, with_report


@task(name="up")
def lab_up(_: Context):
    """Bring the lab up.

    It has two bare relay hosts, headscale, an ACME server, DNS, and three sites with real clients.
    """
    from fleet import lab as verbs

    with_report(verbs.up)


@task(name="down")
def lab_down(_: Context):
    """Take this checkout's lab down, and nothing else."""
    from fleet import lab as verbs

    with_report(verbs.down)


@task(name="status")
def lab_status(_: Context):
    """Show which parts of the lab run."""
    from fleet import lab as verbs

    with_report(verbs.status)


@task(name="shell", help={"host": "hk1, sg1, hs1, site-a, … (default: the lab's network namespace)"})
def lab_shell(context: Context, host=""):
    """Open a shell in the lab: on a host, at a client's site, or in the lab's network.

    Example: invoke lab.shell --host hk1
    """
    from fleet import lab as verbs

    with_report(lambda report: verbs.shell(report, host))


lab = Collection("lab", lab_up, lab_down, lab_status, lab_shell)
