"""Each kind that can be absent, and the things of other programs that stay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.resource import (
    Absent,
    Conffile,
    Directory,
    File,
    Group,
    Image,
    NftTable,
    Package,
    Resource,
    Service,
    Sysctl,
    User,
)
from engine.run import Outcome
from tests.agent.driver import Agent, OnStage
from tests.agent.plans import RULES

FIN = "net.ipv4.tcp_fin_timeout"
FIREWALL = NftTable(table="relay", path="/etc/relay.nft", rules=RULES)
CONF = Conffile(path="/etc/web.conf", package="web")
WEB = {"/var/fake/payload/web/etc/web.conf": "packaged\n"}
DOCKER = """#!/bin/sh
# `image ls` has the images, `container ls` those that a container uses.
case "$1 $2" in
  "image ls") cat /var/fake/images ;;
  "image inspect") grep -qx "$3" /var/fake/images ;;
  "container ls") for used in $(cat /var/fake/used); do [ "$6" != "ancestor=$used" ] || echo 0123; done ;;
  "image rm") shift 2; for name; do sed -i "\\\\|^$name\\$|d" /var/fake/images; done ;;
esac
"""


def twice(agent: Agent, *wanted: Resource) -> Outcome:
    """Return the first of two runs. The second finds nothing to do."""
    first = agent.run(wanted)
    assert agent.run(wanted).changed == []
    return first


def test_user_and_group_go_and_their_lines_with_them(on_stage: OnStage) -> None:
    agent = on_stage()
    paths = [agent.stage.root / "etc" / name for name in ("passwd", "group", "shadow", "gshadow")]
    before = [path.read_text() for path in paths]
    agent.run([Group(group="relay"), User(user="relay", group="relay")])
    assert [path.read_text() for path in paths] != before
    gone = User(user="relay", group="relay", present=False)
    assert twice(agent, gone, Group(group="relay", present=False)).ok
    assert [path.read_text() for path in paths] == before


def test_a_group_that_is_another_users_own_stays(on_stage: OnStage) -> None:
    agent = on_stage()
    agent.run([Group(group="shared"), User(user="theirs", group="shared")])
    outcome = agent.run([Group(group="shared", present=False)])
    assert [failure.id for failure in outcome.failures] == ["group:shared"]


def test_a_directory_goes_when_it_is_empty(on_stage: OnStage) -> None:
    agent, wanted = on_stage(), [Absent(path="/srv/d/ours"), Directory(path="/srv/d", present=False)]
    agent.run(
        [
            Directory(path="/srv/d"),
            File(path="/srv/d/ours", content=b""),
            File(path="/srv/d/theirs", content=b""),
        ]
    )
    assert twice(agent, *wanted).changed == ["absent:/srv/d/ours"]
    (agent.stage.root / "srv/d/theirs").unlink()
    assert twice(agent, *wanted).changed == ["directory:/srv/d"]
    assert not (agent.stage.root / "srv/d").exists()


def test_a_link_to_an_empty_directory_is_not_ours_to_remove(on_stage: OnStage) -> None:
    agent = on_stage()
    (agent.stage.root / "srv/theirs").mkdir()
    (agent.stage.root / "srv/d").symlink_to("theirs")
    assert twice(agent, Directory(path="/srv/d", present=False)).changed == []
    assert (agent.stage.root / "srv/d").is_symlink()


def test_a_kernel_setting_is_no_longer_set_at_boot(on_stage: OnStage) -> None:
    agent = on_stage()
    agent.run([Sysctl(key=FIN, value="31")])
    assert twice(agent, Sysctl(key=FIN, present=False)).changed == [f"sysctl:{FIN}"]
    assert list((agent.stage.root / "etc/sysctl.d").glob("*derpfleet*")) == []
    assert agent.stage.run("sysctl", "--values", FIN).stdout == "31\n"


def test_rules_go_without_a_second_connection_and_others_stay(on_stage: OnStage) -> None:
    agent = on_stage()
    agent.stage.run("nft", "add", "table", "inet", "theirs")
    before = agent.stage.run("nft", "list", "ruleset").stdout
    agent.run([FIREWALL])
    agent.way_in = False
    gone = NftTable(table="relay", path="/etc/relay.nft", present=False)
    assert twice(agent, gone).changed == ["firewall:relay"]
    assert agent.stage.run("nft", "list", "ruleset").stdout == before
    assert not (agent.stage.root / "etc/relay.nft").exists()
    assert not (agent.stage.root / "var/lib/derpfleet/firewall-relay").exists()


def test_what_packets_put_into_a_set_is_no_drift(on_stage: OnStage) -> None:
    agent = on_stage()
    seen = b"{ set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; }; "
    wanted = replace(FIREWALL, rules=RULES.replace(b"{ ", seen, 1))
    assert agent.run([wanted]).changed == ["firewall:relay"]
    agent.stage.run("nft", "add", "element", "inet", "relay", "seen", "{ 192.0.2.1, 192.0.2.2 }")
    assert "192.0.2.2" in agent.stage.run("nft", "list", "ruleset").stdout
    assert agent.run([wanted]).changed == []
    agent.stage.run("nft", "add", "chain", "inet", "relay", "more")
    assert agent.run([wanted]).changed == ["firewall:relay"]


@pytest.mark.parametrize("lost", ["rules", "file"])
def test_half_of_a_firewall_goes_as_well(on_stage: OnStage, lost: str) -> None:
    agent = on_stage()
    agent.run([FIREWALL])
    argv = ["rm", "/etc/relay.nft"] if lost == "file" else ["nft", "delete", "table", "inet", "relay"]
    agent.stage.run(*argv)
    assert twice(agent, NftTable(table="relay", path="/etc/relay.nft", present=False)).changed == [
        "firewall:relay"
    ]
    assert "relay" not in agent.stage.run("nft", "list", "ruleset").stdout


def test_images_of_every_tag_go_but_those_that_a_container_uses(on_stage: OnStage) -> None:
    agent = on_stage(
        files={
            "/var/fake/bin/docker": DOCKER,
            "/var/fake/images": "a/b:1\na/b:2\na/b:3\n",
            "/var/fake/used": "a/b:2",
        }
    )
    assert twice(agent, Image(ref="a/b", present=False)).changed == ["image:a/b"]
    assert (agent.stage.root / "var/fake/images").read_text() == "a/b:2\n"


def test_an_image_by_digest_goes(on_stage: OnStage) -> None:
    ref = "a/b@sha256:0123"
    agent = on_stage(
        files={"/var/fake/bin/docker": DOCKER, "/var/fake/images": f"{ref}\n", "/var/fake/used": ""}
    )
    assert twice(agent, Image(ref=ref, present=False)).changed == [f"image:{ref}"]
    assert (agent.stage.root / "var/fake/images").read_text() == ""


def test_no_docker_is_no_image(on_stage: OnStage) -> None:
    agent = on_stage(files={"/var/fake/bin/docker": "#!/bin/sh\nexit 1\n"})
    assert (
        agent.run([Image(ref="a/b", present=False), Image(ref="a/b@sha256:0123", present=False)]).changed
        == []
    )


def test_a_packages_file_becomes_the_packages_again(on_stage: OnStage) -> None:
    agent, path = on_stage(files=WEB), "etc/web.conf"
    agent.run([Package(package="web"), File(path="/etc/web.conf", content=b"ours\n")])
    agent.forget()
    assert twice(agent, CONF).changed == ["conffile:/etc/web.conf"]
    assert (agent.stage.root / path).read_text() == "packaged\n"
    (line,) = [line for line in agent.log() if "--reinstall" in line]
    assert line.endswith("install --reinstall -o Dpkg::Options::=--force-confmiss web")


def test_a_packages_file_stays_when_the_package_cannot_be_had(on_stage: OnStage) -> None:
    agent = on_stage(files=WEB)
    agent.run([Package(package="web"), File(path="/etc/web.conf", content=b"ours\n")])
    (agent.stage.root / "var/fake/install.fails").write_text("no network\n")
    assert [failure.id for failure in agent.run([CONF]).failures] == [CONF.id]
    assert (agent.stage.root / "etc/web.conf").read_text() == "ours\n"
    assert list((agent.stage.root / "etc").glob(".web*")) == []


def test_systemd_forgets_a_unit_whose_file_was_removed_last(on_stage: OnStage) -> None:
    agent = on_stage()
    unit = File(path="/etc/systemd/system/relay.service", content=b"[Service]\nExecStart=/bin/true\n")
    agent.run([unit, Service(unit="relay.service")])
    agent.forget()
    gone = [Service(unit="relay.service", enabled=False, running=False), Absent(path=unit.path)]
    agent.run(gone)
    assert agent.log() == [
        "systemctl disable relay.service",
        "systemctl stop relay.service",
        "systemctl daemon-reload ",
    ]
    agent.forget()
    assert (agent.run(gone).changed, agent.log()) == ([], [])
