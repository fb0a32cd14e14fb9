"""Resources in, plan out: order, selection, and the JSON that the agent reads.

Pure, but for hashing shipped files.
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

Mode = Literal["check", "apply"]
_TRIGGERS = ("restart_on", "reload_on", "on_change")
_CONTENT = {"content", "archive", "rules"}


class PlanError(DerpfleetError):
    """The roles contradict themselves.

    An id is given twice, a path has two owners, no role gives a needed id, or needs form a circle.
    """


@dataclass(frozen=True)
class Plan:
    """An ordered plan. `blobs` maps sha256 (hex) to the content that has it.

    `left_out`: the resources that were not selected but act when one of the plan changes. Each is
    `{"id": …, "restart_on": …, …}`, and will owe that action.
    """

    mode: Mode
    resources: tuple[Resource, ...]
    specs: tuple[Mapping[str, Any], ...]
    left_out: tuple[Mapping[str, Any], ...]
    blobs: Mapping[str, Content]

    def message(self) -> dict[str, Any]:
        """Return the message to the agent."""
        return {
            "plan": 1,
            "mode": self.mode,
            "id": self.id,
            "resources": list(self.specs),
            "left_out": list(self.left_out),
        }

    @property
    def id(self) -> str:
        """Return `sha256:…` of the wanted state. It is the same for check and apply."""
        return "sha256:" + hashlib.sha256(json.dumps(self.specs, sort_keys=True).encode()).hexdigest()


def compile_plan(resources: Iterable[Resource], *, mode: Mode, only: Sequence[str] = ()) -> Plan:
    """Return the plan for `resources`.

    `only`: keep just these ids or `role:NAME`s, and the resources that they need.

    Raises PlanError naming the resources at fault.
    """
    ordered, left_out = _order(_unique(resources)), list[Mapping[str, Any]]()
    if only:
        ordered, left_out = _select(ordered, only)
    blobs: dict[str, Content] = {}
    specs = tuple(_spec(resource, blobs) for resource in ordered)
    return Plan(mode, tuple(ordered), specs, tuple(left_out), blobs)


def revealed(content: Content) -> bytes | Path:
    """Return the content as it is sent. A secret becomes the text of a file."""
    return content.reveal().encode() + b"\n" if isinstance(content, Secret) else content


def sha256(content: Content) -> str:
    """Return the hex digest of the content as it is sent.

    The digest of a file is memoized by its path, size and mtime.
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
        path = getattr(resource, "path", None)
        if other is None and path is not None:
            other = owners.get(path)
        if other is not None:
            one, another = (f"{each.id} of role {each.role}" for each in (resource, other))
            raise PlanError(f"{one} and {another} own the same thing")
        found[resource.id] = resource
        if path is not None:
            owners[path] = resource
    return found


def _before(resource: Resource) -> tuple[str, ...]:
    """Return the ids that come before `resource`."""
    return resource.needs + tuple(name for key in _TRIGGERS for name in getattr(resource, key, ()))


def _order(found: Mapping[str, Resource]) -> list[Resource]:
    """Return the resources, needs first, otherwise in the order of the roles. Raises PlanError."""
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
                raise PlanError(f"{resource.id} of role {resource.role} needs {name}, which no role gives")
            visit(found[name], (*path, resource.id))
        state[resource.id] = "done"
        ordered.append(resource)

    for resource in found.values():
        visit(resource, ())
    return ordered


def _select(
    ordered: Sequence[Resource], only: Sequence[str]
) -> tuple[list[Resource], list[Mapping[str, Any]]]:
    """Return the resources that `only` names, with their needs, and what the plan leaves out.

    The second are the triggers of the rest, as far as they are in the first (see `Plan.left_out`).
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
                next="`invoke check --json` lists every id, in its event `plan`",
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
    """Return the triggers of `resource` that are in `wanted`. This run cannot change the others."""
    present = [key for key in _TRIGGERS if hasattr(resource, key)]
    return {key: tuple(name for name in getattr(resource, key) if name in wanted) for key in present}


def _spec(resource: Resource, blobs: dict[str, Content]) -> dict[str, Any]:
    spec: dict[str, Any] = {"id": resource.id, "kind": resource.kind}
    for field in fields(resource):
        value = getattr(resource, field.name)
        if field.name in _CONTENT:
            if value is not None:
                digest = sha256(value)
                blobs[digest] = value
                spec["content_sha256"] = digest
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
