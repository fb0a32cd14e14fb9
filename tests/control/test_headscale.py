"""The headscale host: what is asked, and the resources made from its facts."""

import hashlib
from dataclasses import replace

import pytest

from control.headscale.config import parse_config
from control.headscale.facts import NEWEST, ask, parse_version
from control.headscale.reader import parse_map
from control.headscale.transaction import resources, to_withdraw
from engine.health import Http
from engine.plan import compile_plan
from tests.control.headscale_host import CONFIG, CONFIG_PATH, MAP, MAP_PATH, SITE, facts, made, site_of

TICKING = CONFIG.replace("update_frequency: 3h", "update_frequency: 5s")


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


def test_a_map_file_that_is_a_link_is_written_through():
    seen = facts()
    linked = replace(seen.files[MAP_PATH], link="/srv/derp.yaml")
    seen = replace(seen, files={**seen.files, MAP_PATH: linked})
    map_file, *_ = resources(site_of(), seen, [site_of().hosts["hk1"]])
    assert map_file.path == "/srv/derp.yaml"
