"""Make the plan of resources: order, selection, and the JSON that the agent reads.

Pure, except that shipped files are hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from engine.resource import Content, Resource
from inventory.errors import DerpfleetError
from inventory.secrets import Secret

Mode = Literal["check", "prepare", "apply"]
_CONTENT = {"content", "archive", "rules"}
_CONTENTS = {"shared"}


class PlanError(DerpfleetError):
    """The roles contradict themselves: an id or a path twice, an unknown need, a circle."""


@dataclass(frozen=True)
class Plan:
    """An ordered plan. `blobs` maps sha256 (hex) to the content that has it.

    `left_out` lists the resources that were not selected and act when one of the plan changes, as
    `{"id": …, "restart_on": …, …}`. They will owe that.
    """

    mode: Mode
    resources: tuple[Resource, ...]
    specs: tuple[Mapping[str, Any], ...]
    left_out: tuple[Mapping[str, Any], ...]
    blobs: Mapping[str, Content]

    def message(self) -> dict[str, Any]:
        """Return the message to the agent."""
        specs, left_out = list(self.specs), list(self.left_out)
        return {"plan": 1, "mode": self.mode, "id": self.id, "resources": specs, "left_out": left_out}

    @property
    def id(self) -> str:
        """Return `sha256:…` of the wanted state. It is the same in every mode."""
        return "sha256:" + hashlib.sha256(json.dumps(self.specs, sort_keys=True).encode()).hexdigest()


def compile_plan(resources: Iterable[Resource], *, mode: Mode, only: Sequence[str] = ()) -> Plan:
    """Return the plan for `resources`. `only` keeps these ids or `role:NAME`s and all their needs.

    Raises PlanError naming the resources at fault.
    """
    ordered, left_out = _order(_unique(resources)), list[Mapping[str, Any]]()
    if only:
        ordered, left_out = _select(ordered, only)
    blobs: dict[str, Content] = {}
    specs = tuple(_spec(resource, blobs) for resource in ordered)
    return Plan(mode, tuple(ordered), specs, tuple(left_out), blobs)


def revealed(content: Content) -> bytes | Path:
    """Return the content as it goes over the wire: a secret as the text file that it becomes."""
    return content.reveal().encode() + b"\n" if isinstance(content, Secret) else content


def sha256(content: Content) -> str:
    """Return the hex digest of the content as it goes over the wire.

    A file's digest is remembered by its path, size and time.
    """
    content = revealed(content)
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    info = content.stat()
    return _file_sha256(content, info.st_size, info.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unique(resources: Iterable[Resource]) -> dict[str, Resource]:
    found: dict[str, Resource] = {}
    owners: dict[str, Resource] = {}
    for resource in resources:
        other = found.get(resource.id)
        path = resource.owned_path()
        if other is None and path:
            other = owners.get(path)
        if other is not None:
            both = f"{resource.id} of role {resource.role} and {other.id} of role {other.role}"
            raise PlanError(f"{both} own the same thing")
        found[resource.id] = resource
        if path:
            owners[path] = resource
    return found


def _before(resource: Resource) -> tuple[str, ...]:
    """Return the ids that come before `resource`."""
    return resource.needs + tuple(name for names in resource.triggers().values() for name in names)


def _order(found: Mapping[str, Resource]) -> list[Resource]:
    """Put needs first, and otherwise keep the order in which the roles gave the resources."""
    ordered: list[Resource] = []
    state: dict[str, str] = {}

    def visit(resource: Resource, path: tuple[str, ...]) -> None:
        if state.get(resource.id) == "done":
            return
        if state.get(resource.id) == "open":
            circle = (*path[path.index(resource.id) :], resource.id)
            raise PlanError("resources need each other in a circle", why=" -> ".join(circle))
        state[resource.id] = "open"
        for name in _before(resource):
            if name not in found:
                needing = f"{resource.id} of role {resource.role}"
                raise PlanError(f"{needing} needs {name}, which no role gives")
            visit(found[name], (*path, resource.id))
        state[resource.id] = "done"
        ordered.append(resource)

    for resource in found.values():
        visit(resource, ())
    return ordered


def _select(
    ordered: Sequence[Resource], only: Sequence[str]
) -> tuple[list[Resource], list[Mapping[str, Any]]]:
    """Return the resources that `only` names with all their needs, and `Plan.left_out`.

    Raises PlanError.
    """
    by_id = {resource.id: resource for resource in ordered}
    wanted: set[str] = set()
    for name in only:
        hits = [r.id for r in ordered if name in (r.id, f"role:{r.role}")]
        if not hits:
            roles = sorted({f"role:{resource.role}" for resource in ordered})
            raise PlanError(
                f"--only {name}: no such resource or role",
                why="the roles are " + ", ".join(roles),
                next="invoke check --json lists every id, in its event plan",
            )
        wanted.update(hits)
    queue = list(wanted)
    while queue:
        for name in by_id[queue.pop()].needs:
            if name not in wanted:
                wanted.add(name)
                queue.append(name)
    kept = [replace(resource, **_triggers(resource, wanted)) for resource in ordered if resource.id in wanted]
    rest = {resource.id: _triggers(resource, wanted) for resource in ordered if resource.id not in wanted}
    return kept, [{"id": id, **triggers} for id, triggers in rest.items() if any(triggers.values())]


def _triggers(resource: Resource, wanted: set[str]) -> dict[str, Any]:
    """Return the triggers of `resource` that are wanted: others do not change in this run."""
    triggers = resource.triggers().items()
    return {key: tuple(name for name in names if name in wanted) for key, names in triggers}


def _spec(resource: Resource, blobs: dict[str, Content]) -> dict[str, Any]:
    spec: dict[str, Any] = {"id": resource.id, "kind": resource.kind}
    for field in fields(resource):
        value = getattr(resource, field.name)
        if field.name in _CONTENT:
            if value is not None:
                digest = sha256(value)
                blobs[digest] = value
                spec["content_sha256"] = digest
        elif field.name in _CONTENTS:
            named = {sha256(each): each for each in value}
            blobs.update(named)
            spec[field.name] = list(named)
        else:
            spec[field.name] = _plain(value)
    return spec


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        plain = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        kind = getattr(value, "kind", None)
        return plain | ({"kind": kind} if kind else {})
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
