"""The reasons to refuse a change of a headscale host, and the warnings about one."""

from dataclasses import replace

import pytest

from control.derpmap import yaml_region
from control.headscale import transaction
from control.headscale.facts import HeadscaleRefused
from control.headscale.merge import merge
from control.headscale.reader import parse_map
from control.headscale.transaction import resources, warnings
from tests.control.headscale_host import (
    CONFIG,
    CONFIG_PATH,
    MAP,
    MAP_PATH,
    SITE,
    facts,
    file,
    made,
    served,
    site_of,
)
from tests.support.facts import DEBIAN_12

URL = "https://controlplane.tailscale.com/derpmap/default"
QUIET = CONFIG.replace(f"    - {URL}\n", "").replace("urls:", "urls: []")


def refusals(*arguments):
    return list(transaction.refusals(*arguments))


OTHER = MAP.replace("910", "920").replace("office", "annex").replace("derp.example.com", "annex.example.com")
B = "/etc/headscale/b.yaml"
WITH_B = CONFIG.replace("paths: []", f"paths: [{B}]")
EMBEDDED = CONFIG.replace("    enabled: false\n", "    enabled: true\n", 1)

REFUSALS = [
    (
        {"unit": "LoadState=not-found\n"},
        "There is no unit headscale.service on the headscale host: set headscale.unit in the site file.",
    ),
    (
        {"map": MAP.replace("910", "900")},
        f"Region 900 in {MAP_PATH} is 'office' at derp.example.com, which is not hk1: give hk1 another id, "
        "or take that region out of the file.",
    ),
    (
        {"map": MAP.replace("office", "hk")},
        f"The code hk of hk1 is taken by region 910 ('hk' at derp.example.com) in {MAP_PATH}: "
        "give hk1 another one.",
    ),
    (
        {"map": MAP.replace("910a", "900a")},
        f"The node name 900a of hk1 is taken by region 910 ('office' at derp.example.com) in {MAP_PATH}: "
        "give hk1 another region id.",
    ),
    (
        {"config": WITH_B, B: OTHER.replace("920", "900")},
        f"Region 900 is in {B}, too, and headscale uses the last of two files: take it out there, "
        "or set headscale.derp_map to that file.",
    ),
    (
        {"config": WITH_B, B: OTHER.replace("annex.example.com", "hk1.example.org")},
        f"hk1.example.org is in the map already, as region 920 ('annex' at hk1.example.org) in {B}: "
        "take it out there.",
    ),
    (
        {"config": EMBEDDED.replace("999", "900")},
        "Region 900 is that of headscale's own relay (derp.server.region_id): give hk1 another id.",
    ),
    (
        {"config": EMBEDDED.replace('"headscale"', "hk")},
        "The code hk is that of headscale's own relay (derp.server.region_code): give hk1 another code.",
    ),
    (
        {"config": CONFIG.replace("tail.example.net", "example.org")},
        "hk1.example.org is under dns.base_domain example.org: nodes would ask MagicDNS for it, "
        "through the tunnel that needs the relay. Give the relay a name outside of that domain.",
    ),
    (
        {"version": "v0.23.0"},
        "headscale 0.23.0 has no /verify, so hk1 would refuse every client: upgrade headscale to 0.24 or "
        "newer, or set hosts.hk1.relay.open or .verify_client_url.",
    ),
]


@pytest.mark.parametrize(("seen", "sentence"), REFUSALS, ids=range(len(REFUSALS)))
def test_refused_before_anything_is_changed(seen, sentence):
    site = site_of()
    assert refusals(site, facts(**seen), [site.hosts["hk1"]]) == [sentence]
    with pytest.raises(HeadscaleRefused) as caught:
        resources(site, facts(**seen), [site.hosts["hk1"]])
    assert caught.value.why == sentence


def test_a_self_signed_certificate_needs_a_pin():
    site = site_of(SITE.replace("agree_terms: true", "source: self-signed", 1))
    hk1 = site.hosts["hk1"]
    assert [sentence.partition(":")[0] for sentence in refusals(site, facts(), [hk1])] == [
        "The certificate of hk1 is self-signed and its SHA-256 is not known, so no client would accept it"
    ]
    map_file = resources(site, facts(), [hk1], pins={"hk1": "ab" * 32})[0]
    assert parse_map(map_file.content.decode())[900]["nodes"][0]["certname"] == "sha256-raw:" + "ab" * 32


def test_all_reasons_are_given_at_once():
    seen = facts(
        map=MAP.replace("office", "hk"),
        config=CONFIG.replace("tail.example.net", "example.org"),
        version="v0.23.0",
    )
    assert len(refusals(site_of(), seen, [site_of().hosts["hk1"]])) == 3


NO_MAGIC_DNS = CONFIG.replace("magic_dns: true", "magic_dns: false")


@pytest.mark.parametrize("seen", [
    {"config": CONFIG.replace("tail.example.net", "k1.example.org")},  # not a whole label
    {"config": NO_MAGIC_DNS.replace("tail.example.net", "example.org")},
    {"config": CONFIG.replace("999", "900")},  # headscale's own relay is off
    {"/etc/headscale/unused.yaml": OTHER.replace("920", "900")},  # not under derp.paths
    {"unit": ""},
])  # fmt: skip
def test_not_refused(seen):
    assert refusals(site_of(), facts(**seen), [site_of().hosts["hk1"]]) == []


def test_the_last_region_is_not_taken_away():
    site = site_of()
    alone = made()[0].content.decode().replace("1: null", "")
    only_ours = merge(alone, put={}, remove=[910])
    hk1 = site.hosts["hk1"]
    sentence = (
        "No region would be left, and headscale does not start with none: register another relay first."
    )
    assert refusals(site, facts(map=only_ours, config=QUIET), [], [hk1]) == [sentence]
    assert refusals(site, facts(map=only_ours, config=QUIET), [site.hosts["sg1"]], [hk1]) == []
    assert refusals(site, facts(map=only_ours), [], [hk1]) == []
    assert refusals(site, facts(map=alone, config=QUIET), [], [hk1]) == []


def test_a_host_is_not_registered_and_withdrawn_at_once():
    hk1 = site_of().hosts["hk1"]
    assert refusals(site_of(), facts(), [hk1], [hk1]) == ["hk1 cannot be registered and withdrawn at once."]


@pytest.mark.parametrize(
    ("seen", "what", "why"),
    [
        ({"config": None}, "there is no /etc/headscale/config.yaml on the headscale host", ""),
        (
            {"config": "a: [\n"},
            "/etc/headscale/config.yaml cannot be read",
            "line 2: while parsing a flow node: expected the node content, but found '<stream end>'",
        ),
        (
            {"map": MAP.replace("regioncode", "regionCode").replace("910:", "'910':")},
            "headscale would not read /etc/headscale/derp.yaml as it is meant",
            "line 5: the region id 910 is in quotes: headscale stops at it, ids are bare numbers here",
        ),
        (
            {"config": WITH_B, B: "Regions: {}\n"},
            "headscale would not read /etc/headscale/b.yaml as it is meant",
            "line 1: headscale skips 'Regions': here it is 'regions'",
        ),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read(seen, what, why):
    with pytest.raises(HeadscaleRefused) as caught:
        refusals(site_of(), facts(**seen), [])
    assert (caught.value.what, caught.value.why) == (what, why)


def test_a_map_that_cannot_be_changed_in_place():
    with pytest.raises(HeadscaleRefused) as caught:
        made(map="homeparams: &none {}\nregions: *none\n")
    assert "cannot be changed in place" in caught.value.why


def test_a_file_that_is_no_text():
    seen = replace(DEBIAN_12, files={CONFIG_PATH: file(CONFIG, content=None)})
    with pytest.raises(HeadscaleRefused, match="not a text file"):
        refusals(site_of(), seen, [])


def test_a_site_without_headscale():
    assert list(site_of().control.hosts()) == ["headscale"]
    assert site_of(SITE[: SITE.index("headscale:")]).control.hosts() == {}


URLS = (
    f"{CONFIG_PATH}: derp.urls is fetched at every start ({URL}). headscale does not start when that fails, "
    "as in mainland China or when DNS comes up late; if your own relays are enough, `urls: []` avoids it."
)
WARNINGS = [
    ("", {"config": QUIET}, []),
    ("", {}, [URLS]),
    (
        "derpmap: {omit_default_regions: true}\n",
        {},
        [
            URLS,
            f"{CONFIG_PATH}: derpmap.omit_default_regions is set in the site file, "
            "but derp.urls brings regions of others into the map.",
        ],
    ),
    (
        "",
        {"config": QUIET, "version": "v0.26.1"},
        [
            "headscale 0.26.1 starts even when it cannot read a file or URL of the map, and then lacks its "
            "regions. 0.27 does not start then."
        ],
    ),
    (
        "",
        {"config": QUIET.replace("auto_update_enabled: true", "auto_update_enabled: false")},
        [
            f"{CONFIG_PATH}: derp.auto_update_enabled is off, so each change of the map restarts headscale. "
            "Traffic goes on, and nodes see the new map about 10 s later. "
            "With auto_update_enabled: true and update_frequency: 30s, a new region needs no restart."
        ],
    ),
    (
        "",
        {"config": QUIET.replace("127.0.0.1:9090", '""')},
        [
            "headscale does not show which map it serves: that needs metrics_listen_addr, and 0.26 or newer. "
            "So a deploy waits only for its /health."
        ],
    ),
    (
        "",
        {"config": QUIET.replace("paths: []", "paths: [/opt/x.yaml]")},
        [
            f"{CONFIG_PATH}: /opt/x.yaml under derp.paths was not read, "
            "so a region in it may conflict with ours."
        ],
    ),
]


@pytest.mark.parametrize(("more", "seen", "said"), WARNINGS, ids=range(len(WARNINGS)))
def test_warnings(more, seen, said):
    assert warnings(site_of(SITE + more), facts(**seen)) == said


def test_a_control_server_without_https_loses_its_nodes():
    insecure = SITE.replace("certificate:", "relay: {verify_insecure: true}\n    certificate:")
    site = site_of(insecure.replace("https://headscale", "http://headscale"))
    [said] = warnings(site, facts(config=QUIET))
    assert said.startswith("http://headscale.example.org is not https. ")


def test_a_node_of_others_in_our_region_is_not_lost():
    line = "      - {name: 900b, regionid: 900, hostname: b.example.net}\n"
    site, text = site_of(), merge("", put={900: yaml_region(site_of().hosts["hk1"])}) + "\n" + line
    hk1 = site.hosts["hk1"]
    sentence = (
        f"Region 900 in {MAP_PATH} has nodes of others, too: 900b at b.example.net. They would be lost: "
        "give hk1 another id, or take these nodes out of the file."
    )
    assert refusals(site, facts(map=text), [hk1]) == [sentence]
    assert sentence in refusals(site, facts(map=text), [], [hk1])


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        (
            {"region_id": 900, "region_code": "x", "nodes": [{"name": "900a", "host_name": "x.example.net"}]},
            f"The id 900 of hk1 is that of region 900 ('x' at x.example.net), which headscale serves from "
            f"derp.urls ({URL}): give hk1 another id.",
        ),
        (
            {"RegionID": 7, "RegionCode": "hk", "Nodes": [{"Name": "7a", "HostName": "x.example.net"}]},
            f"The code of hk1 is that of region 7 ('hk' at x.example.net), which headscale serves from "
            f"derp.urls ({URL}): give hk1 another code.",
        ),
        ({"region_id": 900, "region_code": "hk", "nodes": [{"host_name": "hk1.example.org"}]}, None),
        ({"region_id": 900, "nodes": 7}, None),
        ("nonsense", None),
    ],
)
def test_a_region_that_only_the_served_map_has_is_not_replaced(region, sentence):
    id = str(region.get("RegionID", 900)) if isinstance(region, dict) else "900"
    said = served({"Regions": {id: region}})
    assert refusals(site_of(), said, [site_of().hosts["hk1"]]) == ([sentence] if sentence else [])
