"""The served map against reality. Pure: a decoded map in, a judgement out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control.served import Map, Served, Unknown, Unreadable
from probe.proof import Broken, Found, Proof, Rung, with_rung
from probe.target import Target


def plain(value: Any) -> Any:
    """Return a map with one spelling of its names: lower case, no underscores.

    The same facts come as Go's JSON (`RegionID`), as a YAML file of headscale (`regionid`) and from
    its /debug/derp (`region_id`).
    """
    if isinstance(value, Mapping):
        return {str(name).replace("_", "").lower(): plain(member) for name, member in value.items()}
    return [plain(member) for member in value] if isinstance(value, list | tuple) else value


def with_map(proof: Proof, target: Target, served: Served) -> Proof:
    """Return the proof with its last rung climbed.

    The map may be known only after the rest is proved, or never.
    """
    return with_rung(proof, map_rung(target, served, {each.name: each for each in proof.rungs}))


def map_rung(target: Target, served: Served, rungs: Mapping[str, Rung]) -> Rung:
    """Return the rung `map`. `rungs`: those below it that were climbed."""
    if isinstance(served, Unknown):
        return Rung("map", "skipped", served.why)
    if isinstance(served, Unreadable):
        step = f"{served.next}; then {target.again}"
        return Rung("map", "failed", served.why, cause=served.cause, next=step)
    port_80 = (
        {"ok": True, "failed": False}.get(rungs["generate_204"].status) if "generate_204" in rungs else None
    )
    try:
        return Rung("map", "ok", check_map(target, served, port_80=port_80).detail)
    except Broken as broken:
        return Rung("map", "failed", broken.detail, cause=broken.cause, next=broken.next)


def check_map(target: Target, served: Map, *, port_80: bool | None) -> Found[None]:
    """Check that the target's node is in the served map, and that each of its fields is true.

    `port_80`: whether /generate_204
    was proved; None when not tried. Raises Broken.
    """
    step = f"invoke deploy --host {target.name}" if target.of_site else "correct the map"
    regions = plain(served.document).get("regions")
    region = _region_of(regions if isinstance(regions, Mapping) else {}, target)
    if not region:
        raise Broken(
            f"{served.title} has no region {target.region_id or 'with ' + target.domain}",
            cause="the relay was never registered, or the control server has not loaded it",
            next=step,
        )
    nodes = _nodes(region)
    node = next((each for each in nodes if each.get("hostname") == target.domain), None)
    if node is None:
        raise Broken(
            f"region {region.get('regionid')} is served with "
            f"{', '.join(str(each.get('hostname')) for each in nodes) or 'no node'}",
            cause=f"the map sends clients elsewhere than to {target.domain}",
            next=step,
        )
    wrong = [
        f"{name} is {node[key]!r}, real is {real!r}"
        for name, key, real, same in _facts(target, port_80)
        if key in node and not same(node[key])
    ]
    if wrong:
        raise Broken(f"{served.title}: {'; '.join(wrong)}", cause="the map and the relay disagree", next=step)
    compared = [name for name, key, *_ in _facts(target, port_80) if key in node]
    return Found(None, f"region {region.get('regionid')}: {', '.join(['hostname', *compared])} as proved")


def _region_of(regions: Mapping[str, Any], target: Target) -> Mapping[str, Any] | None:
    """Return the target's region: by its id if that is known, else by its name among the nodes."""
    found = {number: region for number, region in regions.items() if isinstance(region, Mapping)}
    if target.region_id is not None:
        return found.get(str(target.region_id))
    return next(
        (
            region
            for region in found.values()
            if any(node.get("hostname") == target.domain for node in _nodes(region))
        ),
        None,
    )


def _nodes(region: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    nodes = region.get("nodes")
    return [node for node in nodes if isinstance(node, Mapping)] if isinstance(nodes, list) else []


def _facts(target: Target, port_80: bool | None) -> list[tuple[str, str, Any, Any]]:
    """Return (name, key, real value, test of a served value) for each field of a node that can be
    wrong."""
    stun = target.stun_port if target.stun_port is not None else -1
    facts: list[tuple[str, str, Any, Any]] = [
        ("port", "derpport", target.https_port, lambda value: (value or 443) == target.https_port),
        ("STUN port", "stunport", stun, lambda value: (value or 3478) == stun),
        ("certname", "certname", _certname(target), lambda value: (value or "") == _certname(target)),
        ("insecurefortests", "insecurefortests", False, lambda value: not value),
    ]
    for name, key, real in (("IPv4", "ipv4", target.ipv4), ("IPv6", "ipv6", target.ipv6)):
        if real is not None:
            facts.append((name, key, real, lambda value, real=real: value in (real, "")))
    if port_80 is not None:
        facts.append(("canport80", "canport80", port_80, lambda value: not value or port_80))
    return facts


def _certname(target: Target) -> str:
    return f"sha256-raw:{target.pin}" if target.pin else ""
