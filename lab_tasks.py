"""The lab's verbs, `invoke lab.*`: signatures and help, as in `tasks.py`, which adds them to its own."""

from __future__ import annotations

from invoke import Collection, Context, task

from fleet.shared.opening import with_report


@task(name="up")
def lab_up(_: Context):  # type: ignore[no-untyped-def]
    """Bring the lab up: two bare relay hosts, headscale, an ACME server, DNS, three sites with real clients."""
    from fleet import lab as verbs

    with_report(verbs.up)


@task(name="down")
def lab_down(_: Context):  # type: ignore[no-untyped-def]
    """Take down what this checkout's lab made, and nothing else."""
    from fleet import lab as verbs

    with_report(verbs.down)


@task(name="status")
def lab_status(_: Context):  # type: ignore[no-untyped-def]
    """What of the lab runs."""
    from fleet import lab as verbs

    with_report(verbs.status)


@task(name="shell", help={"host": "hk1, sg1, hs1, site-a, …; without: the lab's network namespace"})
def lab_shell(context: Context, host=""):  # type: ignore[no-untyped-def]
    """A shell inside the lab: on a host, at a client's site, or just in its network.

    Example: invoke lab.shell --host hk1
    """
    from fleet import lab as verbs

    with_report(lambda report: verbs.shell(report, host))


lab = Collection("lab", lab_up, lab_down, lab_status, lab_shell)
