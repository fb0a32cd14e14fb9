"""Our units and our firewall as systemd and nft judge them."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.roles.cases import FOLDER, names


def units(case: str) -> dict[str, str]:
    """Return the text of each unit of a case's plan, by name."""
    plan = json.loads((FOLDER / case / "plan.json").read_text())
    found = {
        r["id"]: r["content"] for r in plan["resources"] if r["id"].startswith("file:/etc/systemd/system/")
    }
    return {name.rpartition("/")[2]: "\n".join(lines) + "\n" for name, lines in found.items()}


@pytest.mark.parametrize(
    "case",
    [
        "admission-joined",
        "bare",
        "docker",
        "native",
        "native-no-front",
        "no-front-acme",
        "other-ports-manual",
        "verify-url-with-signs",
    ],
)
def test_systemd_understands_every_line(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "system"
    folder.mkdir()
    for name, text in units(case).items():
        # Programs that only a deployed host has.
        (folder / name).write_text(re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", text, flags=re.M))
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, folder.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        done.returncode,
        [line for line in done.stderr.splitlines() if str(folder) in line or "derpfleet" in line],
    ) == (0, [])


@pytest.mark.parametrize(
    ("unit", "most", "case"),
    [
        ("derpfleet-relay.service", 1.1, "bare"),
        ("derpfleet-certificate.service", 2.5, "bare"),
        ("derpfleet-firewall.service", 3, "bare"),
        ("derpfleet-backend.service", 3, "bare"),
        ("derpfleet-ssh-ports.service", 3, "bare"),
        ("derpfleet-nginx-test.service", 3, "bare"),
        ("derpfleet-tailscaled.service", 1.5, "admission-joined"),
    ],
)
def test_services_are_shut_in(unit: str, most: float, case: str, tmp_path: Path) -> None:
    """systemd's own measure of exposure, 0 to 10."""
    path = tmp_path / unit
    path.write_text(units(case)[unit])
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= most


def test_the_relays_unit_has_what_the_measure_does_not_count() -> None:
    text = units("other-ports-manual")["derpfleet-relay.service"]
    assert {
        "SocketBindDeny=any",
        "SocketBindAllow=ipv4:tcp:9411",
        "NoExecPaths=/",
        "LimitCORE=0",
        "MemoryHigh=60%",
        "MemoryMax=75%",
        "TasksMax=64",
        "TemporaryFileSystem=/var:ro /srv:ro",
        "BindReadOnlyPaths=/var/lib/derpfleet-relay",
    } <= set(text.splitlines())
    (executables,) = re.findall(r"^ExecPaths=(.*)$", text, re.M)
    assert {"/usr/bin/python3", "/opt/derpfleet", "-/bin/kill"} <= set(executables.split())


def rules(case: str) -> str | None:
    """Return our rules as a file's text, None where the plan has none of them."""
    plan = json.loads((FOLDER / case / "plan.json").read_text())
    found = [one for one in plan["resources"] if one["id"] == "firewall:derpfleet" and "rules" in one]
    return "\n".join(found[0]["rules"]) + "\n" if found else None


@pytest.mark.parametrize("case", [name for name in names() if rules(name)])
def test_nft_loads_our_rules_twice_and_leaves_others_alone(case: str, tmp_path: Path) -> None:
    ours, others = tmp_path / "ours.nft", tmp_path / "others.nft"
    ours.write_text(rules(case) or "")
    others.write_text("table inet mine {\n\tchain input {\n\t\ttcp dport 1 drop\n\t}\n}\n")
    load = f"nft -f {others} && nft -f {ours} && nft -f {ours} && nft list ruleset"
    done = subprocess.run(["unshare", "--net", "sh", "-c", load], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(others.read_text())
    assert done.stdout.count("table inet derpfleet") == 1
    assert "policy drop" in done.stdout


def test_the_rules_say_what_is_open(tmp_path: Path) -> None:
    text = rules("other-ports-manual") or ""
    assert "tcp dport { 22, 2222, 3489, 8000-8010, 8080 } accept" in text
    assert "udp dport { 3479, 51820 } accept" in text


def owned_folders(case: str) -> list[str]:
    plan = json.loads((FOLDER / case / "plan.json").read_text())
    return [
        r["id"]
        for r in plan["resources"]
        if r["id"].startswith(("directory:", "file:", "tree:")) and r.get("owner", "root") != "root"
    ]


@pytest.mark.parametrize("case", names())
def test_root_never_works_where_the_relay_may_write(case: str) -> None:
    """An attacker in the relay could plant links there.

    Root would follow them at the next deploy.
    """
    assert owned_folders(case) == []
    assert "StateDirectory" not in units(case).get("derpfleet-relay.service", "")
    plan = json.loads((FOLDER / case / "plan.json").read_text())
    words = [word for r in plan["resources"] for word in r.get("arguments", ())]
    volumes = [word for flag, word in pairwise(words) if flag == "--volume"]
    assert [volume for volume in volumes if not volume.endswith(":ro")] == []


def test_certbot_can_reach_no_socket_of_systemd_and_no_secret_of_others() -> None:
    """Otherwise `systemd-run` leaves the sandbox (M6)."""
    text = units("bare")["derpfleet-certificate.service"]
    assert "AF_UNIX" not in text
    lines = re.findall(r"^InaccessiblePaths=(.*)$", text, re.M)
    hidden = {word.lstrip("-") for line in lines for word in line.split()}
    secrets = {"/etc/shadow", "/root", "/var/lib/derpfleet-relay", "/etc/ssh"}
    assert {"/run/dbus", "/run/systemd/private"} | secrets <= hidden
    [post] = re.findall(r"^ExecStartPost=(.*)$", text, re.M)
    assert post == "+/opt/derpfleet/bin/certificate deploy --unless-served"


def test_cron_starts_the_sandboxed_unit() -> None:
    plan = json.loads((FOLDER / "no-front-acme" / "plan.json").read_text())
    by_id = {resource["id"]: resource for resource in plan["resources"]}
    cron = by_id["file:/etc/cron.d/derpfleet-certificate"]
    assert cron["content"][-1].endswith(" root systemctl start derpfleet-certificate.service")
    assert "file:/etc/systemd/system/derpfleet-certificate.service" in cron["needs"]
    assert "derpfleet-certificate.timer" not in units("no-front-acme")
