"""The map that a site makes, for a policy file and for headscale."""

import json

import pytest

from control.derpmap import derpmap, region_node, warnings, yaml_map, yaml_region
from control.headscale.reader import parse_map
from control.paste import instructions
from control.yaml_text import plain
from inventory.document import compose
from inventory.model import Site
from inventory.site_file import compile_site
from tests.control.tailscale.policies import site as policy_site
from tests.control.tailscale.policies import taking

SITE = """\
hosts:
  sg1:
    domain: sg1.example.org
    ipv6: 2001:db8::20
    region: {id: 901, code: sg, name: Singapore}
    ports: {https: 3489, stun: 3479, http: 8080}
    certificate: {source: manual, fullchain: f, key: 'file:k'}
  hk1:
    domain: hk1.example.org
    ipv4: 203.0.113.10
    region: {id: 900, code: hk, name: 香港, latitude: 22.3, longitude: 114.2}
    certificate: {agree_terms: true}
  ip1:
    domain: 203.0.113.30
    region: {id: 902, code: ip, name: By address}
    certificate: {source: self-signed}
"""


def site_of(text, tmp_path):
    site = compile_site(text, tmp_path / "site.yml")
    assert isinstance(site, Site), [str(problem) for problem in site]
    return site


@pytest.fixture
def site(tmp_path):
    return site_of(SITE, tmp_path)


def test_official_regions_are_in_it_where_clients_have_no_others() -> None:
    assert derpmap(taking(policy_site(), 4))["Regions"].keys() == {"900", "901"}
    alone = derpmap(taking(policy_site(omit=True), 4))
    assert alone["Regions"].keys() == {"4", "900", "901"}
    assert alone["Regions"]["4"]["RegionCode"] == "fra"


def test_the_map_in_tailcfgs_own_names(site):
    assert derpmap(site, pins={"ip1": "ab" * 32}) == {
        "OmitDefaultRegions": False,
        "Regions": {
            "900": {
                "RegionID": 900,
                "RegionCode": "hk",
                "RegionName": "香港",
                "Latitude": 22.3,
                "Longitude": 114.2,
                "Nodes": [
                    {
                        "Name": "900a",
                        "RegionID": 900,
                        "HostName": "hk1.example.org",
                        "IPv4": "203.0.113.10",
                        "IPv6": "none",
                        "DERPPort": 443,
                        "STUNPort": 3478,
                        "CanPort80": True,
                    }
                ],
            },
            "901": {
                "RegionID": 901,
                "RegionCode": "sg",
                "RegionName": "Singapore",
                "Nodes": [
                    {
                        "Name": "901a",
                        "RegionID": 901,
                        "HostName": "sg1.example.org",
                        "IPv4": "none",
                        "IPv6": "2001:db8::20",
                        "DERPPort": 3489,
                        "STUNPort": 3479,
                        "CanPort80": False,
                    }
                ],
            },
            "902": {
                "RegionID": 902,
                "RegionCode": "ip",
                "RegionName": "By address",
                "Nodes": [
                    {
                        "Name": "902a",
                        "RegionID": 902,
                        "HostName": "203.0.113.30",
                        "CertName": "sha256-raw:" + "ab" * 32,
                        "DERPPort": 443,
                        "STUNPort": 3478,
                        "CanPort80": True,
                    }
                ],
            },
        },
    }


def test_default_regions_are_left_out_as_configured(tmp_path):
    site = site_of(SITE + "derpmap: {omit_default_regions: true}\n", tmp_path)
    assert derpmap(site)["OmitDefaultRegions"] is True


def test_a_learnt_pin_comes_before_that_of_the_site(tmp_path):
    pinned = SITE.replace("source: self-signed", f"source: self-signed, pin: {'cd' * 32}")
    hosts = site_of(pinned, tmp_path).hosts
    assert region_node(hosts["ip1"])["CertName"] == "sha256-raw:" + "cd" * 32
    assert region_node(hosts["ip1"], pin="ab" * 32)["CertName"] == "sha256-raw:" + "ab" * 32
    assert "CertName" not in region_node(hosts["hk1"])


def test_headscales_spelling_is_the_same_in_lower_case(site):
    region = yaml_region(site.hosts["hk1"])
    assert list(region) == ["regionid", "regioncode", "regionname", "latitude", "longitude", "nodes"]
    assert region["nodes"][0]["canport80"] is True
    text = yaml_map(site)
    assert plain(compose(text)) == {
        "regions": {host.region.id: yaml_region(host) for host in site.hosts.values()}
    }
    assert list(parse_map(text)) == [900, 901, 902]


def test_warnings(site, tmp_path):
    assert warnings(site) == [
        "The certificate of ip1 is self-signed and its SHA-256 is not known, so no client would accept it: "
        "run invoke deploy --host ip1, which reads it on the host; "
        "or set hosts.ip1.certificate.pin, if you know it."
    ]
    assert warnings(site, pins={"ip1": "ab" * 32}) == []
    alone = site_of(
        "hosts: {hk1: {domain: hk1.example.org, region: {id: 900, code: hk, name: HK}, "
        "certificate: {agree_terms: true}}}\n"
        "derpmap: {omit_default_regions: true}\n",
        tmp_path,
    )
    assert warnings(alone) == [
        "derpmap.omit_default_regions leaves clients with a single relay: when it is down, "
        "nodes without a direct path are cut off. Deploy a second host first."
    ]


def test_the_text_to_paste_is_the_map(site):
    text = instructions(site)
    policy = text[text.index("    {\n") : text.index("\nA headscale")]
    assert json.loads(policy) == {"derpMap": derpmap(site)}
    lines = text[text.index("    regions:") : text.index("\n  Name the file")].splitlines()
    assert "\n".join(line.removeprefix("    ") for line in lines).strip("\n") == yaml_map(site).strip("\n")
    assert "urls: []" not in text
    assert "its SHA-256 is not known" in text
    assert text.startswith("This site has no headscale host")


def test_for_a_site_with_headscale_the_text_names_it(tmp_path):
    text = instructions(site_of(SITE + "headscale: {url: 'https://headscale.example.org'}\n", tmp_path))
    assert text.startswith("https://headscale.example.org gets these regions from `invoke deploy`.")


def test_headscale_leaves_default_regions_out_by_having_no_urls(tmp_path):
    assert "      urls: []" in instructions(
        site_of(SITE + "derpmap: {omit_default_regions: true}\n", tmp_path)
    )
