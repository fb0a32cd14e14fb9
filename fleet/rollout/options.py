"""The options of `invoke rollout`, over the keys of the site file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from engine.rollout.state import EventKind
from fleet.rollout import compare, go_on, rollout
from fleet.shared.fleet import Fleet
from fleet.shared.options import number, one_of, refuse
from inventory import words
from inventory.errors import DerpfleetError
from inventory.rollout import RolloutPolicy
from inventory.schema import json_schema, schema_at

_LONGEST_S = 86_400


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """The options as they were typed.

    `keys`: by the key of the policy that they win over, "" or () for one that was not given.
    `head`: the flags of the ledger's head.
    """

    keys: Mapping[str, Any]
    head: Mapping[str, bool]
    again: bool = False
    dry_run: bool = False
    resume: bool = False
    abort: bool = False
    wait: str = "0"


def carry_out(fleet: Fleet, names: Sequence[str], given: RolloutOptions) -> int:
    """Begin a rollout, go on with one, end one, or show the plan. Returns the exit code.

    Raises DerpfleetError for options that do not fit.
    """
    wait_s = number(given.wait, "--wait", most=_LONGEST_S)
    if given.resume or given.abort:
        others = {_option(key): value for key, value in {**given.keys, **given.head}.items()}
        others |= {"--host": names, "--again": given.again, "--dry-run": given.dry_run}
        refuse("has no meaning for a rollout that has begun", others)
        one_of({"--resume": given.resume, "--abort": given.abort})
        return go_on(fleet, EventKind.ABORTED if given.abort else EventKind.RESUMED, wait_s=wait_s)
    policy, chosen_hosts = chosen(fleet.site.rollout, given.keys), fleet.equipped(names, resolve=True)
    fleet.hosts(policy.canary)
    for host in chosen_hosts:
        if not host.managed:
            fleet.left_to_others(host, "it counts as another relay")
    hosts = [host for host in chosen_hosts if host.managed]
    if not hosts:
        return 0
    _refuse_canaries(given.keys.get("canary", ()), [host.name for host in hosts])
    if given.dry_run:
        return compare(fleet, hosts, policy, **given.head)
    return rollout(fleet, hosts, policy, wait_s=wait_s, again=given.again, **given.head)


def _refuse_canaries(canaries: Sequence[str], names: Sequence[str]) -> None:
    """Raise DerpfleetError when a canary is none of these hosts: another one would be the first."""
    if others := [name for name in canaries if name not in names]:
        raise DerpfleetError(
            f"--canary {others[0]} is no host of this rollout",
            why=f"its hosts are: {', '.join(names)}",
            next="give one of them, or add --host for that one",
        )


def chosen(policy: RolloutPolicy, keys: Mapping[str, Any]) -> RolloutPolicy:
    """Return the policy with the keys that were given. Raises DerpfleetError with the option."""
    typed = {key: value for key, value in keys.items() if value}
    if "waves" in typed:
        typed["waves"] = typed["waves"].split(",")
    try:
        return RolloutPolicy.model_validate({**policy.model_dump(), **typed})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        part = schema_at(json_schema(), ("rollout", *first["loc"]))
        raise DerpfleetError(
            f"{_option(str(first['loc'][0]))} does not take {first['input']!r}",
            why=words.explain(dict(first), part),
            next="invoke --help rollout shows examples",
        ) from None


def _option(key: str) -> str:
    return f"--{key.removesuffix('_s').replace('pauses', 'pause').replace('_', '-')}"
