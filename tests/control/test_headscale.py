"""The headscale host: resources, refusals and warnings from facts."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from control.derpmap import yaml_region
from control.headscale.config import parse_config
from control.headscale.facts import NEWEST, HeadscaleRefused, ask, parse_version
from control.headscale.merge import merge
from control.headscale.reader import parse_map
from control.headscale.transaction import refusals, resources, to_withdraw, warnings
from engine.facts import FileFact, Output
from engine.health import Http
from engine.plan import compile_plan
from engine.resource import File, Service
from inventory.model import Site
from inventory.site_file import compile_site
from tests.support.facts import DEBIAN_12

FOLDER = Path(__file__).parent / "headscale"
CONFIG = (FOLDER / "config.yaml").read_text()
MAP = (FOLDER / "derp.yaml").read_text()
CONFIG_PATH, MAP_PATH = "/etc/headscale/config.yaml", "/etc/headscale/derp.yaml"
TICKING = CONFIG.replace("update_frequency: 3h", "update_frequency: 5s")
URL = "https://controlplane.tailscale.com/derpmap/default"
QUIET = CONFIG.replace(f"    - {URL}\n", "").replace("urls:", "urls: []")

SITE = """\
hosts:
  hk1:
    domain: hk1.example.org
    region: {id: 900, code: hk, name: Hong Kong}
    certificate: {agree_terms: true}
  sg1:
    domain: sg1.example.org
    region: {id: 901, code: sg, name: Singapore}
    certificate: {agree_terms: true}
headscale:
  url: https://headscale.example.org
"""


def site_of(text=SITE):
    site = compile_site(text, Path("/site.yml"))
    assert isinstance(site, Site), [str(problem) for problem in site]
    return site


def file(text, **more):
    return FileFact(
        **{
            "content": text,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "mode": "0640",
            "owner": "root",
            "group": "headscale",
        }
        | more
    )


def facts(
    config=CONFIG,
    map=MAP,
    version="headscale version v0.29.2\ncommit: x\n",
    unit="LoadState=loaded\nUnitFileState=enabled\nCanReload=yes\n",
    **files,
):
    there = {CONFIG_PATH: config, MAP_PATH: map, **files}
    return replace(
        DEBIAN_12,
        files={path: file(text) for path, text in there.items() if text is not None},
        commands={
            "headscale-version": Output(status=0 if version else 127, stdout=version, stderr=""),
            "headscale-unit": Output(status=0, stdout=unit, stderr=""),
        },
    )


def made(site=None, proved=("hk1",), withdrawn=(), **seen):
    site = site or site_of()
    map_file, config, service = resources(
        site, facts(**seen), [site.hosts[name] for name in proved], withdrawn
    )
    assert isinstance(map_file, File) and isinstance(config, File) and isinstance(service, Service)
    return map_file, config, service


def test_the_files_and_commands_that_are_asked_for():
    wanted = ask(site_of())
    assert wanted.files == ("/etc/headscale/*.yaml", "/etc/headscale/*.yml", CONFIG_PATH, MAP_PATH)
    assert wanted.commands["headscale-version"] == ("headscale", "version")
    again = ask(site_of(), facts(config=CONFIG.replace("paths: []", "paths: [office.yaml]")))
    assert "/var/lib/headscale/office.yaml" in again.files


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v0.26.1\n", (0, 26, 1)),
        ("headscale version v0.29.2\nbuilt with: go1.27.3\n", (0, 29, 2)),
        ("0.22.3", (0, 22, 3)),
        ("dev", NEWEST),
        ("", NEWEST),
    ],
)
def test_versions(text, version):
    assert parse_version(text) == version


def test_the_map_is_written_over_exactly_what_was_read():
    map_file, config, service = made(proved=("hk1", "sg1"))
    assert parse_map(map_file.content.decode()).keys() == {1, 900, 901, 910}
    assert map_file.only_if_sha256 == hashlib.sha256(MAP.encode()).hexdigest()
    assert (map_file.mode, map_file.owner, map_file.group) == ("0640", "root", "headscale")
    assert parse_config(config.content.decode()).paths == (MAP_PATH,)
    assert config.only_if_sha256 == hashlib.sha256(CONFIG.encode()).hexdigest()
    assert {map_file.role, config.role, service.role} == {"headscale"}
    assert [
        resource.id for resource in compile_plan([map_file, config, service], mode="apply").resources
    ] == [
        map_file.id,
        config.id,
        service.id,
    ]


def test_a_new_map_file_is_as_readable_as_the_configuration():
    map_file, _, _ = made(map=None)
    assert parse_map(map_file.content.decode()).keys() == {900}
    assert (map_file.only_if_sha256, map_file.mode, map_file.group) == ("", "0640", "headscale")


def test_the_second_time_nothing_differs():
    map_file, config, _ = made()
    again, config_again, _ = made(map=map_file.content.decode(), config=config.content.decode())
    assert (again.content, config_again.content) == (map_file.content, config.content)


def test_headscale_is_restarted_and_must_serve_the_regions():
    map_file, config, service = made(proved=("sg1", "hk1"))
    assert (service.unit, service.enabled, service.running) == ("headscale.service", True, True)
    assert (service.restart_on, service.reload_on) == ((map_file.id, config.id), ())
    assert service.healthy == (
        Http(url="http://127.0.0.1:8080/health"),
        Http(
            url="http://127.0.0.1:9090/debug/derp",
            accept="application/json",
            contains=('"900":', '"hk1.example.org"', '"901":', '"sg1.example.org"'),
        ),
    )
    assert service.timeout_s == 60  # one URL to fetch


def test_a_region_that_is_added_to_a_map_read_every_5_s_needs_no_restart():
    map_file, config, service = made(config=TICKING.replace("paths: []", f"paths: [{MAP_PATH}]"))
    assert (service.restart_on, service.reload_on, service.timeout_s) == ((config.id,), (map_file.id,), 65)


@pytest.mark.parametrize(
    "seen",
    [
        {"config": CONFIG},  # every 3 h
        {"config": TICKING.replace("auto_update_enabled: true", "auto_update_enabled: false")},
        {"config": TICKING, "version": "v0.26.1"},
        {"config": TICKING, "unit": "LoadState=loaded\nCanReload=no\n"},
        {"config": TICKING.replace("127.0.0.1:9090", '""')},  # it could not be seen to arrive
        {"config": TICKING, "map": MAP.replace("910", "900").replace("office", "hk")},  # changed, not added
    ],
    ids=["slow", "off", "old", "no reload", "no metrics", "changed"],
)
def test_in_doubt_headscale_is_restarted(seen):
    _, _, service = made(**seen)
    assert service.reload_on == ()
    assert len(service.restart_on) == 2


def test_a_withdrawn_region_goes_with_a_restart_and_the_others_stay():
    site = site_of()
    before = made(proved=("hk1", "sg1"))[0].content.decode()
    map_file, _, service = made(proved=("sg1",), withdrawn=[site.hosts["hk1"]], map=before, config=TICKING)
    assert parse_map(map_file.content.decode()).keys() == {1, 910, 901}
    assert service.reload_on == ()


def test_a_unit_that_is_not_enabled_stays_so():
    assert made(unit="LoadState=loaded\nUnitFileState=disabled\n")[2].enabled is False


DEBUG = "http://127.0.0.1:9090/debug/"
WITH_TLS = CONFIG.replace('tls_cert_path: ""', 'tls_cert_path: "/x.pem"')


@pytest.mark.parametrize(
    ("seen", "headscale", "health", "served"),
    [
        (
            {"config": CONFIG.replace("127.0.0.1:8080", "0.0.0.0:80")},
            "",
            Http(url="http://127.0.0.1:80/health"),
            DEBUG + "derp",
        ),
        (
            {"config": WITH_TLS.replace("127.0.0.1:8080", ":443")},
            "",
            Http(url="https://headscale.example.org/health", connect="127.0.0.1:443", insecure=True),
            DEBUG + "derp",
        ),
        (
            {},
            "  health: http://10.0.0.1/health\n  metrics: http://10.0.0.1:9/\n",
            Http(url="http://10.0.0.1/health"),
            "http://10.0.0.1:9/debug/derp",
        ),
        ({"version": "v0.26.1"}, "", Http(url="http://127.0.0.1:8080/health"), DEBUG + "derpmap"),
        ({"version": "v0.25.0"}, "", Http(url="http://127.0.0.1:8080/health"), None),
        ({"version": ""}, "", Http(url="http://127.0.0.1:8080/health"), DEBUG + "derp"),
    ],
)
def test_where_headscale_is_asked(seen, headscale, health, served):
    _, _, service = made(site_of(SITE + headscale), **seen)
    assert service.healthy[0] == health
    assert [condition.url for condition in service.healthy[1:]] == ([served] if served else [])


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


def test_a_changed_id_is_added_beside_the_old_one_and_that_goes_when_it_is_withdrawn():
    before = made()[0].content.decode()
    site = site_of(SITE.replace("id: 900", "id: 905"))
    both = made(site, map=before)[0].content.decode()
    assert parse_map(both).keys() == {1, 910, 900, 905}
    old = to_withdraw(site, facts(map=both))
    assert [(host.name, host.region.id) for host in old] == [("hk1", 900)]
    after = made(site, withdrawn=old, map=both)[0].content.decode()
    assert parse_map(after).keys() == {1, 910, 905}
    assert to_withdraw(site, facts(map=after)) == []


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
    with pytest.raises(HeadscaleRefused, match="no headscale host"):
        ask(site_of(SITE[: SITE.index("headscale:")]))


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


def served(document, **seen):
    whole = facts(**seen)
    said = Output(status=0, stdout=json.dumps(document), stderr="")
    return replace(whole, commands={**whole.commands, "served": said})


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


def test_a_map_file_that_is_a_link_is_written_through():
    seen = facts()
    linked = replace(seen.files[MAP_PATH], link="/srv/derp.yaml")
    seen = replace(seen, files={**seen.files, MAP_PATH: linked})
    map_file, *_ = resources(site_of(), seen, [site_of().hosts["hk1"]])
    assert map_file.path == "/srv/derp.yaml"
