"""A host goes from every variant of a choice to every other, each by one edit and one deploy.

However a variant was reached, the host then has nothing that it does not have when that variant is
deployed to a host without a relay: nothing of the others is left, listens, runs or is enabled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest

import lab
from lab.topology import ACME
from tests.e2e.desk import Desk
from tests.e2e.steps import auth_key, small, taken_off
from tests.e2e.switches import AUTH_KEY, HK1, WALKS, Materials, Row, materials, name_of, settings_of
from tests.support.walks import over_all_pairs

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]
ONLY = [HK1, "hs1", ACME]

# Paths that a deploy may leave: what packages and certbot keep, the notes of runs, and the releases
# of relay, certbot and our tailscaled, which stay as long as a kept generation has one: a rollback
# needs them. The node's membership is one of these, and nothing of it runs or is enabled.
LOOKED_AT = (
    "/etc", "/opt", "/run/derpfleet-relay", "/usr/local", "/var/cache", "/var/lib", "/var/log", "/var/www",
)
LEFT_OUT = (
    "/etc/letsencrypt", "/etc/docker", "/var/cache/apt", "/var/lib/apt", "/var/lib/containerd",
    "/var/lib/derpfleet", "/var/lib/docker", "/var/lib/dpkg", "/var/lib/letsencrypt", "/var/lib/nginx",
    "/var/lib/systemd", "/var/log/letsencrypt", "/opt/derpfleet/certbot", "/opt/derpfleet/images",
    "/opt/derpfleet/releases", "/opt/containerd", "/opt/derpfleet/tailscaled-releases",
    "/opt/derpfleet/bin/tailscale", "/etc/systemd/system/derpfleet-tailscaled.service",
    "/var/lib/derpfleet-tailscaled", "/var/lib/private/derpfleet-tailscaled",
)  # fmt: skip
# A package that every relay needs, removed at each new pair of these, so that one is to be brought.
SUPPLY = ("packages.from", "packages.mirror")
LACKING = ("apt-get", "--quiet", "--yes", "purge", "systemd-timesyncd")
RUNNING = "systemctl list-units --type=service,socket,timer,path --state=running,listening,waiting --plain"


@pytest.fixture(scope="module")
def more(stage: lab.Lab, derper_archive: str) -> Materials:
    return materials(stage, derper_archive)


@pytest.fixture(scope="module")
def key(stage: lab.Lab) -> str:
    """A key with which a tailscaled joins each time."""
    return auth_key(stage, "--reusable")


def deployed(desk: Desk, row: Row, more: Materials, key: str) -> None:
    """Deploy the small relay of a row. Nobody has to keep the external front."""
    small(desk, HK1, settings_of(row, more), acme=True, map_file="derp.yaml")
    ran = desk.invoke("deploy", "--host", HK1, timeout_s=600, env={AUTH_KEY: key})
    assert ran.of("done", HK1) and ran.counts(HK1)["failed"] == 0, (row, ran.why())
    assert ran.code == (1 if row.get("front") == "external" else 0), (row, ran.why())


def found(desk: Desk) -> set[str]:
    """Return paths, sockets that listen, units that run or are enabled, containers.

    A tailscaled chooses ports anew each time that it starts.
    """

    def lines(*argv: str) -> Iterator[str]:
        return iter(desk.stage.run_in(HK1, [*argv], check=False).stdout.splitlines())

    left_out = [word for folder in LEFT_OUT for word in ("-path", folder, "-prune", "-o")]
    paths = lines("find", *LOOKED_AT, "-xdev", *left_out, "-print")
    sockets = (line.split() for line in lines("ss", "-Hltunp"))
    units = lines("sh", "-c", f"{RUNNING} --no-legend; systemctl list-unit-files --state=enabled --no-legend")
    ours = ("derpfleet", "nginx", "supervisor", "certbot")
    return {
        *paths,
        *(f"{words[0]} {'tailscaled' if 'tailscale' in words[-1] else words[4]}" for words in sockets),
        *(" ".join(line.split()[:1]) for line in units if any(name in line for name in ours)),
        *lines("sh", "-c", "docker ps --all --format '{{.Names}}' 2>/dev/null || true"),
        *lines("sh", "-c", "nft list tables"),
        *lines("sh", "-c", "getent passwd derpfleet-relay; getent group derpfleet-relay"),
    }


@pytest.mark.parametrize("walk", WALKS)
def test_a_switch_between_any_two_variants_leaves_nothing_of_the_old_one(
    desk: Desk, more: Materials, key: str, walk: str
) -> None:
    rows = {name_of(row): row for row in WALKS[walk]}
    taken = over_all_pairs(rows)
    assert len(set(pairwise(taken))) == len(taken) - 1 == len(rows) * (len(rows) - 1)
    after, supplied = list[tuple[str, str, set[str]]](), set[tuple[str, ...]]()
    for before, name in pairwise(["", *taken]):
        ways = tuple(rows[one].get(key, "") for one in (before, name) if one for key in SUPPLY)
        if any(ways) and ways not in supplied:
            supplied.add(ways)
            desk.stage.run_in(HK1, LACKING)
        deployed(desk, rows[name], more, key)
        after.append((before, name, found(desk)))
    fresh = dict[str, set[str]]()
    for name, row in rows.items():
        assert taken_off(desk, HK1).returncode == 0
        deployed(desk, row, more, key)
        fresh[name] = found(desk)
    left = {
        (before, name): sorted(there - fresh[name]) for before, name, there in after if there - fresh[name]
    }
    assert left == {}, json.dumps({" to ".join(way): found for way, found in left.items()}, indent=1)
