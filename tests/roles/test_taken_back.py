"""From every program, runner and admission to every other, and to other releases: each goes back.

With the real agent on the stage of tests/roles/test_uninstall.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from artefacts.image import ImageArtefact
from artefacts.release import Release
from artefacts.shipment import Shipment
from inventory.admission import admission_name
from inventory.choices import ADMISSIONS, FLAVOURS, combination_of
from inventory.model import Host
from tests.agent.driver import Agent
from tests.agent.generations import back, keep
from tests.roles.cases import load
from tests.roles.test_switch import PACKAGES, named
from tests.roles.test_uninstall import (
    FAKES,
    archive,
    deploy,
    different,
    done,
    given,
    install,
    new_host,
    ship,
    state,
    tree,
)

__all__ = ["new_host", "ship"]  # fixtures

CASES = (
    *("bare", "docker", "native", "supervisord"),
    *("admission-joined", "admission-joined-native", "admission-keys", "admission-tailscaled"),
)
OTHERS = (
    *("dns-wildcard", "no-front-acme", "address-short-lived", "front-nginx-stream"),
    *("other-ports-manual", "no-front-docker-self-signed"),
)
STAY = (
    "var/lib/derpfleet/",
    "etc/letsencrypt",
    "var/lib/letsencrypt",
    "var/log/letsencrypt",
    "var/lib/derpfleet-relay/certs/",
    "var/lib/derpfleet-tailscaled",
    "etc/nginx/modules-enabled",  # a package's, and packages stay
)
# A tailscaled that has joined another tailnet has left its own, and needs another key to come back.
TAILNETS = {"admission-joined", "admission-joined-native"}
Ship = Callable[[Host], Shipment]


def test_there_is_a_case_for_each_combination_and_judge() -> None:
    loaded = [load(name)[:2] for name in CASES]
    assert {combination_of(host) for host, _ in loaded} == set(FLAVOURS.values())
    judges = {admission_name(host, site) for host, site in loaded}
    assert judges >= set(ADMISSIONS) - {"url", "open"}, judges  # which put nothing on the host


def other(made: Shipment, folder: Path) -> Shipment:
    """Return the shipment with another release of each relay, and of tailscaled."""
    texts = {"relay/__init__.py": "other = True\n", "bin/tailscaled": FAKES["tailscale"] + "# another\n"}
    found = {path: archive(folder / f"other-{Path(path).name}", {path: text}) for path, text in texts.items()}
    image = folder / "other-image"
    image.write_text("derpfleet/derper:ba9876543210")
    return replace(
        made,
        relay_release=Release(found["relay/__init__.py"], "1a" * 32),
        tailscaled_release=Release(found["bin/tailscaled"], "4d" * 32),
        image=ImageArtefact(image.read_text(), image),
    )


def there(agent: Agent) -> dict[str, str]:
    """Return files, rules, settings, units and containers, without the state of the agent.

    Certificates and memberships of a tailnet stay. The container before the present one is kept,
    whichever it was.
    """
    files = {path: looks for path, looks in tree(agent).items() if not path.startswith(STAY)}
    tables = files.pop("nftables").split("table ")  # in the order of their making
    units = [name for name in state(agent) if "/images" not in name and not name.endswith("-former")]
    return files | dict.fromkeys((*tables, *units), "there")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", (*CASES, *OTHERS))
def test_any_other_deploy_is_taken_back(
    name: str, new_host: Callable[[], Agent], ship: Ship, tmp_path: Path
) -> None:
    """Nothing is sent on a way back, so all that it needs is on the host."""
    agent = new_host()
    install(agent, [*PACKAGES, "cron"])
    host, site, _ = load(name)
    given(agent, host)
    done(agent.run_job(deploy(host, site, named(ship(host), host)), judge=keep))
    before = there(agent)
    more = (*CASES, *OTHERS) if name == "bare" else CASES if name in CASES else ("bare",)
    for after in (name, *(one for one in more if one != name and {one, name} != TAILNETS)):
        host, site, _ = load(after)
        made = other(ship(host), tmp_path) if after == name else named(ship(host), host)
        outcome = agent.run_job(deploy(host, site, made), judge=back)
        assert outcome.failures == outcome.astray == [], after
        assert (outcome.is_going_back, outcome.generation) == (True, 1) or not outcome.changed, after
        assert different(there(agent), before) == {}, after
