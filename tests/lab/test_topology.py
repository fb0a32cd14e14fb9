from __future__ import annotations

from ipaddress import IPv4Network, ip_address
from pathlib import Path

from lab.topology import (
    ACME_AT,
    DNS_AT,
    EVERY_HOST,
    EVERY_PART,
    HOSTS,
    INNER_NETWORKS,
    PARTS,
    SITES,
    WAY_OUT_NETWORKS,
    Topology,
    first_free,
    lab_id,
)

TOPOLOGY = Topology("abc123", INNER_NETWORKS[0], WAY_OUT_NETWORKS[0])


def test_the_id_is_the_folders_own(tmp_path: Path) -> None:
    assert lab_id(tmp_path / "a") == lab_id(tmp_path / "b" / ".." / "a")
    assert lab_id(tmp_path / "a") != lab_id(tmp_path / "b")


def test_names_fit_where_the_kernel_wants_them_short() -> None:
    assert len(TOPOLOGY.namespace) <= 15
    assert all(len(f"v-{part}") <= 15 for part in [*EVERY_HOST, *(site.nat for site in SITES.values())])


def test_no_two_things_have_one_address() -> None:
    at = [DNS_AT, ACME_AT, *(host.at for host in EVERY_HOST.values()), *(site.at for site in SITES.values())]
    assert len(set(at)) == len(at)
    lans = [site.lan for site in SITES.values()]
    assert not any(a.overlaps(b) for i, a in enumerate(lans) for b in lans[:i])


def test_the_first_range_that_meets_nothing_is_taken() -> None:
    first, second = INNER_NETWORKS[:2]
    assert first_free(INNER_NETWORKS, []) == first
    assert first_free(INNER_NETWORKS, [IPv4Network("198.51.0.0/16")]) == second
    assert first_free(INNER_NETWORKS, [first.supernet(), IPv4Network(f"{second[9]}/32")]) == INNER_NETWORKS[2]
    assert first_free(INNER_NETWORKS, INNER_NETWORKS) is None


def test_a_range_for_the_way_out_never_meets_one_for_hosts() -> None:
    assert not any(a.overlaps(b) for a in INNER_NETWORKS for b in WAY_OUT_NETWORKS)


def test_every_host_has_its_names() -> None:
    lines = [line.split() for line in TOPOLOGY.hosts_file().splitlines()]
    named = {(str(ip_address(address)), name) for address, *names in lines for name in names}
    for name, spec in EVERY_HOST.items():
        assert (str(TOPOLOGY.ipv4(name)), spec.domain) in named
        six = TOPOLOGY.ipv6(name)
        assert six is None or (str(six), spec.domain) in named


def test_relay_hosts_are_those_with_a_region() -> None:
    assert {name for name, spec in EVERY_HOST.items() if spec.region} == {
        name for name, spec in EVERY_HOST.items() if spec.kind == "relay"
    }
    assert set(PARTS) >= {*HOSTS, *SITES}
    assert set(EVERY_PART) - set(PARTS) == EVERY_HOST.keys() - HOSTS.keys()
