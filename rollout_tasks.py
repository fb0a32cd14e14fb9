"""The verbs of a rollout and of the way back: signatures, help. `tasks.py` adds them to its own."""
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from invoke import Context

from fleet.shared.opening import FILE, HOSTS, JSON, task, with_site


@task(
    iterable=["host", "canary"],
    help=HOSTS
    | {"canary": "a host of the first wave; may be given several times (default: one of each kind)"}
    | {"waves": "the sizes of the waves after that one (default: 10%,50%,rest)"}
    | {"budget": "how many hosts of the whole rollout may fail (default: 0)"}
    | {"soak": "how many seconds a wave is watched before the next one (default: 60)"}
    | {"at-once": "how many relays may restart at the same time (default: 1)"}
    | {"on-failure": "take back nothing (stop), the hosts of that wave (wave), or all (default: wave)"}
    | {"skip-unreachable": "leave out the hosts that cannot be reached"}
    | {"include-withdrawn": "bring withdrawn and drained relays back as well"}
    | {"again": "also with a plan that the last rollout could not prove"}
    | {"pause": "pause after the first wave", "dry-run": "show the plan, and change nothing"}
    | {"resume": "go on with the rollout that is open, whoever began it", "abort": "end that one"}
    | {"wait": "how many seconds to wait while another rollout is under way (default: 0)"},
)
def rollout(
    _: Context, host=None, site="", canary=None, waves="", budget="", soak="", at_once="", on_failure="",
    skip_unreachable=False, include_withdrawn=False, again=False, pause=False, dry_run=False, resume=False,
    abort=False, wait="0", json=False,
):  # fmt: skip
    """Bring hosts to the site file's state in waves; each is proved before the next one begins.

    All hosts are prepared before the first is cut over. A host with nothing to do is left alone.
    One that is not proved goes back; with more of them than the budget, their wave does.

    Examples:
      invoke rollout --dry-run
      invoke rollout --canary sg1 --soak 300
      invoke rollout --resume

    Exit codes: 0 all confirmed, 1 failures within the budget, or refused, 3 unreachable, 4 site
    file wrong, 5 another rollout is under way, 6 paused, 7 failed, and every host is confirmed or
    as before, 8 a host is neither, 130 interrupted. With --dry-run: 10 something would change.
    """
    from fleet.rollout.options import RolloutOptions, carry_out

    keys = {"canary": canary, "waves": waves, "budget": budget, "soak_s": soak, "at_once": at_once}
    given = RolloutOptions(
        keys=keys | {"on_failure": on_failure},
        head={"pauses": pause, "skip_unreachable": skip_unreachable, "include_withdrawn": include_withdrawn},
        again=again,
        dry_run=dry_run,
        resume=resume,
        abort=abort,
        wait=wait,
    )
    with_site(site, lambda fleet: carry_out(fleet, host, given), json=json)


@task(
    help={"host": "the host", "site": FILE, "json": JSON}
    | {"rollout": "the id of a rollout, as `invoke history` shows it: all of its hosts go back"}
    | {"to": "a number that `invoke history` shows, or found: take everything off (default: one back)"}
    | {"dry-run": "show what would change, and change nothing"}
    | {"force": "overwrite files that were edited by hand since"},
)
def rollback(_: Context, host="", site="", to="", rollout="", dry_run=False, force=False, json=False):
    """Bring a host back to an earlier confirmed state, prove it, carry the map along.

    Each change is shown as a diff before it is made. Nothing is sent to the host: contents and
    releases are there. Packages, certificates and keys stay as they are. --to found, or --to 0, is
    `invoke uninstall`. --rollout: all hosts of that rollout, the newest first, to what they had
    before it; `invoke rollout --resume` goes on with it.

    Examples:
      invoke rollback --host hk1 --dry-run
      invoke rollback --host hk1 --to 11
      invoke rollback --rollout 2026-11-29T14-02-11Z-7f3a

    Exit codes: 0 back and proved, 1 refused or a resource failed, 3 unreachable, 4 site file wrong,
    5 host locked, 6 and 7 not proved and as before, 8 neither. With --dry-run: 10 something would
    change.
    """
    from fleet.rollback import FOUND
    from fleet.rollback import rollback as verb
    from fleet.rollout.going_back import take_all_back
    from fleet.shared.options import one_of, refuse
    from fleet.uninstall import uninstall

    def work(fleet):
        one_of({"--host": host, "--rollout": rollout})
        if rollout:
            refuse("has no meaning for a whole rollout", {"--to": to, "--force": force})
            return take_all_back(fleet, rollout, dry_run=dry_run)
        [one] = fleet.managed([host])
        if to in FOUND:
            refuse("has no meaning when all of derpfleet is taken off", {"--force": force})
            return uninstall(fleet, one, dry_run=dry_run)
        return verb(fleet, one, to=to, dry_run=dry_run, force=force)

    with_site(site, work, json=json, diffs=True)


verbs = (rollout, rollback)
