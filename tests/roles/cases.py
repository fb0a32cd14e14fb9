"""Cases without Python: site.yml + facts.json -> plan.json, one folder each.

`python -m tests.roles.cases` writes the plans of today over those that are there; review the
difference, then commit it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import inventory
import roles
from artefacts.image import ImageArtefact
from artefacts.release import Release
from artefacts.shipment import Shipment, auth_key
from engine.facts import Facts
from engine.plan import compile_plan
from engine.resource import Resource
from inventory.model import Host, Site
from inventory.secrets import Secret
from roles import distributions

FOLDER = Path(__file__).parent / "cases"
CHECKOUT = Path(__file__).parent.parent.parent
PROGRAM = (CHECKOUT / "files" / "certificate.py").read_bytes().split(b"\n", 1)[1]
PARTS = {(CHECKOUT / "files" / name).read_bytes(): name for name in ("lineage.py", "ledger.py", "pause.py")}


def names() -> list[str]:
    """Return the names of all cases."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def deployable() -> list[str]:
    """Return the names of the cases whose distribution is known."""
    return [name for name in names() if distributions.known(facts_of(name))]


def plan_of(name: str) -> dict[str, Any]:
    """Return a case's refusals, its warnings if any, and its resources in the plan's order."""
    folder, (host, site, facts) = FOLDER / name, load(name)
    if distributions.known(facts) is None:
        return {"refusals": roles.refusals(host, site, facts), "resources": []}
    resources = compile_plan(
        roles.compile_host(host, site, facts, shipment(host, auth_key(host, facts))), mode="check"
    ).resources
    warnings = {"warnings": found} if (found := roles.warnings(host, site, facts)) else {}
    return {
        "refusals": roles.refusals(host, site, facts),
        **warnings,
        "resources": [_shown(resource, folder) for resource in resources],
    }


def load(name: str) -> tuple[Host, Site, Facts]:
    """Return a case's host, site and facts."""
    site = inventory.load(FOLDER / name / "site.yml")
    (host,) = site.hosts.values()
    return host, site, facts_of(name)


def facts_of(name: str) -> Facts:
    """Return the facts of a case."""
    return Facts.parse(_joined(json.loads((FOLDER / name / "facts.json").read_text())))


def _joined(raw: Any) -> Any:
    """Return the facts with texts in place of lists of lines, as long texts are in facts.json."""
    if isinstance(raw, dict):
        texts = {
            key: "".join(f"{line}\n" for line in raw[key])
            for key in ("stdout", "content")
            if isinstance(raw.get(key), list)
        }
        return {key: _joined(value) for key, value in raw.items()} | texts
    return raw


def shipment(host: Host, *more: str | None) -> Shipment:
    """Return artefacts that are only named; the files are stand-ins.

    `more`: references of secrets beside those of the certificate.
    """
    locks = CHECKOUT / "requirements"
    certificate = host.certificate
    account = certificate.account
    secrets = [certificate.key, account and account.hmac, certificate.dns.secret if certificate.dns else None]
    return Shipment(
        relay_release=Release(locks / "relay.lock", "a1" * 32),
        certbot_release=Release(locks / "certbot.lock", "b2" * 32),
        image=ImageArtefact("derpfleet/derper:0123456789ab", locks / "relay.in"),
        tailscaled_release=Release(locks / "certbot.in", "d4" * 32),
        secrets={secret: Secret("SECRETVALUE") for secret in (*secrets, *more) if secret},
        prober_keys=(f"nodekey:{'1a' * 32}", f"nodekey:{'2b' * 32}"),
        mesh_key=Secret("SECRETVALUE"),
    )


def text_of(plan: dict[str, Any]) -> str:
    """Return the plan's text as it is kept: one key a line, so that a difference reads well."""
    return json.dumps(plan, indent=1, ensure_ascii=False) + "\n"


def _shown(resource: Resource, folder: Path) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": resource.id, "role": resource.role}
    for field in fields(resource):
        value = getattr(resource, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        in_id = field.name != "unless_kept" and str(value) in resource.id
        if field.name != "role" and value != default and not in_id:
            shown[field.name] = _plain(value, folder)
    if shown.get("secret"):
        assert isinstance(resource.content, Secret)  # unwrapped at the wire
        shown["content"] = "(secret)"
    return shown


def _plain(value: Any, folder: Path) -> Any:
    if isinstance(value, bytes):
        if value.endswith(PROGRAM):
            return [value.split(b"\n", 1)[0].decode(), "(files/certificate.py)"]
        if value in PARTS:
            return [f"(files/{PARTS[value]})"]
        return value.decode().splitlines()
    if isinstance(value, Path):
        root = folder if value.is_relative_to(folder) else CHECKOUT
        return f"({value.relative_to(root) if value.is_absolute() else value})"
    if is_dataclass(value):
        plain = {field.name: _plain(getattr(value, field.name), folder) for field in fields(value)}
        return {key: item for key, item in plain.items() if item not in ("", [], False, None, "*/*", 200)}
    if isinstance(value, tuple):
        return [_plain(item, folder) for item in value]
    return value


def main() -> None:
    for name in sys.argv[1:] or names():
        path = FOLDER / name / "plan.json"
        text = text_of(plan_of(name))
        before = path.read_text() if path.exists() else ""
        path.write_text(text)
        print(f"{'same   ' if text == before else 'CHANGED'} {name}")


if __name__ == "__main__":
    main()
