"""With each admission two real nodes meet through the relay, and a stranger is out.

One host goes from each setting to the next, beside a tailscaled of the operator's own, and ends
without anything of ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artefacts import go
from artefacts.binary import source
from artefacts.programs import TAILSCALED
from inventory import tailscaled
from lab.client import LabClient
from lab.process import wait_for
from tests.e2e.broken import checkout_of_ours_with_another_tailscaled
from tests.e2e.desk import Desk, Ran
from tests.e2e.steps import auth_key, exchange, in_force, rung, settled

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
ONLY = ("hk1", "hs1", "acme", "site-a", "site-b")
Nodes = tuple[LabClient, LabClient]

ENVIRONMENT, HOSTNAME, THEIRS = "TS_AUTHKEY", "derp-hk1", "/run/tailscale/tailscaled.sock"


def headscale(desk: Desk, nodes: Nodes) -> Mapping[str, Any]:
    return {"admission": "headscale"}


def url(desk: Desk, nodes: Nodes) -> Mapping[str, Any]:
    return {"admission": "url", "verify_client_url": f"{desk.stage.headscale.url}/verify"}


def keys(desk: Desk, nodes: Nodes) -> Mapping[str, Any]:
    return {"admission": "keys", "keys": [node.status()["Self"]["PublicKey"] for node in nodes]}


def theirs(desk: Desk, nodes: Nodes) -> Mapping[str, Any]:
    return {"admission": "tailscaled", "tailscaled": {"socket": f"/var{THEIRS}"}}


def joined(*_: object) -> Mapping[str, Any]:
    return {"admission": "tailscaled", "tailscaled": {"manage": True, "auth_key": f"env:{ENVIRONMENT}"}}


def everyone(desk: Desk, nodes: Nodes) -> Mapping[str, Any]:
    return {"admission": "open"}


def is_online(desk: Desk) -> bool:
    """Whether our tailscaled is a node that is online.

    headscale keeps those that have left, and gives the next one a number behind its name. It calls
    one online for 10 s after it has left: it may come back.
    """
    found = json.loads(desk.stage.headscale.command("nodes", "list"))
    return any(node["given_name"].startswith(HOSTNAME) and node.get("online") for node in found)


def await_gone(desk: Desk) -> None:
    """Wait until our tailscaled is no node that is online."""
    wait_for(lambda: not is_online(desk), timeout_s=30, what="our tailscaled has not left the tailnet")


def runs(desk: Desk) -> bool:
    """Whether our tailscaled runs on hk1, now or after a boot.

    Once it is no longer used, its files stay as long as a generation has it.
    """
    asked = (["systemctl", verb, "--quiet", tailscaled.UNIT] for verb in ("is-active", "is-enabled"))
    return any(desk.stage.run_in("hk1", argv, check=False).returncode == 0 for argv in asked)


def forget(desk: Desk) -> None:
    """Take off hk1 what a former deploy left: our tailscaled, unused, is still a node."""
    desk.stage.run_in("hk1", ["systemctl", "stop", tailscaled.UNIT], check=False)
    state = [f"/var/lib/{part}{tailscaled.NAME}" for part in ("", "private/")]
    desk.stage.run_in("hk1", ["rm", "-rf", *state])


def keep_secret(desk: Desk, key: str, ran: Ran) -> None:
    """The key is in no output, and in no file or log of the host."""
    assert key not in json.dumps(ran.events) + ran.errors
    look = f"grep -rlF -e {key} /etc /run /opt/derpfleet/bin /var/lib /var/log 2>/dev/null; journalctl -o cat"
    found = desk.stage.run_in("hk1", ["sh", "-c", look], check=False).stdout
    assert key not in found and not [line for line in found.splitlines() if line.startswith("/")]


def pid(desk: Desk) -> str:
    """Return the process id of the operator's tailscaled."""
    shown = ["systemctl", "show", "--property=MainPID", "--value", "tailscaled"]
    return desk.stage.run_in("hk1", shown).stdout.strip()


@pytest.fixture(scope="module")
def operators(desk: Desk) -> Iterator[str]:
    """The process id of a tailscaled of the operator's own on hk1, which has joined."""
    built = go.build(source(TAILSCALED), cache=desk.stage.cache, progress=print, arch="x86_64")
    program = (built / TAILSCALED.name).read_bytes()
    desk.stage.hosts["hk1"].write({"usr/local/bin/tailscaled": program}, mode=0o755)
    desk.stage.run_in("hk1", ["ln", "-s", "tailscaled", "/usr/local/bin/tailscale"])
    start = [
        "systemd-run", "--quiet", "--unit=tailscaled", "--property=RuntimeDirectory=tailscale",
        "--property=StateDirectory=tailscale", "/usr/local/bin/tailscaled", "--tun=userspace-networking",
        "--port=0", "--no-logs-no-support", "--statedir=/var/lib/tailscale", f"--socket={THEIRS}",
    ]  # fmt: skip
    up = [
        "/usr/local/bin/tailscale", f"--socket={THEIRS}", "up", "--hostname=theirs", "--timeout=30s",
        f"--login-server={desk.stage.headscale.url}", f"--auth-key={auth_key(desk.stage, '--reusable')}",
    ]  # fmt: skip
    desk.stage.run_in("hk1", start)
    wait_for(
        lambda: desk.stage.run_in("hk1", up, check=False).returncode == 0, timeout_s=60, what="theirs is out"
    )
    yield pid(desk)
    desk.stage.run_in("hk1", ["systemctl", "stop", "tailscaled"])


def deployed(desk: Desk, key: str) -> Ran:
    """Deploy with the key at hand, then without one; the second deploy has nothing to do."""
    ran = desk.invoke("deploy", "--host", "hk1", env={ENVIRONMENT: key}, timeout_s=600)
    assert ran.code == 0, ran.why()
    again = desk.invoke("deploy", "--host", "hk1")
    assert (again.code, again.changed("hk1")) == (0, []), again.why()
    return ran


@pytest.mark.parametrize(
    ("program", "admission"),
    [
        ("python", keys),
        ("python", url),
        ("python", joined),
        ("derper", joined),
        ("derper", theirs),
        ("python", theirs),
        ("derper", headscale),
        ("derper", url),
        ("python", everyone),
        ("derper", everyone),
        ("python", headscale),
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_nodes_meet_and_a_stranger_is_out(
    desk: Desk, nodes: Nodes, operators: str, program: str, admission: Callable[..., Mapping[str, Any]]
) -> None:
    desk.edit("hk1", relay={"program": program, **admission(desk, nodes)})
    key = auth_key(desk.stage)
    ran = deployed(desk, key)
    is_out = rung(ran, "handshake")["detail"] == "two known keys admitted, a stranger refused"
    assert is_out == (admission is not everyone)
    assert runs(desk) == (admission is joined)
    if admission is not joined:
        await_gone(desk)
    else:
        assert is_online(desk)
        keep_secret(desk, key, ran)
        nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        look = [*nobody, "ls", f"/run/{tailscaled.NAME}"]
        assert desk.stage.run_in("hk1", look, check=False).returncode != 0
    exchange(nodes, "hk")
    assert pid(desk) == operators


def tailscaled_in_use(desk: Desk) -> str:
    """Return the path of the program that our tailscaled on hk1 is."""
    return desk.stage.run_in("hk1", ["readlink", "-f", tailscaled.PROGRAM]).stdout.strip()


def test_a_broken_release_with_another_tailscaled_is_taken_back(
    desk: Desk, nodes: Nodes, operators: str, tmp_path: Path
) -> None:
    """The former tailscaled runs again, is in the tailnet, and the nodes are admitted by it."""
    desk.edit("hk1", relay=joined())
    deployed(desk, auth_key(desk.stage))
    exchange(nodes, "hk")
    number, before = in_force(desk), tailscaled_in_use(desk)
    broken = replace(desk, checkout=checkout_of_ours_with_another_tailscaled(tmp_path, "packets"))

    ran = broken.invoke("deploy", "--host", "hk1", timeout_s=600)

    assert ran.code == 7, ran.why()
    brought = [id for id in ran.changed("hk1") if id.startswith("tree:/opt/derpfleet/tailscaled-releases/")]
    assert brought and f"tree:{before.rpartition('/bin/')[0]}" not in brought
    [verdict] = ran.of("verdict", "hk1")
    assert (verdict["verdict"], "packets" in verdict["broken"]) == ("failed", True)
    assert [event["generation"] for event in ran.of("back", "hk1")] == [number]
    assert ran.proof("hk1")["packets_passed"]
    assert (in_force(desk), tailscaled_in_use(desk)) == (number, before)
    assert runs(desk) and is_online(desk)
    exchange(nodes, "hk")
    assert pid(desk) == operators
    again = desk.invoke("deploy", "--host", "hk1")
    assert (again.code, again.changed("hk1")) == (0, []), again.why()
    desk.edit("hk1", relay={"admission": "headscale"})
    settled(desk)
    assert not runs(desk)


@pytest.mark.parametrize("why", ["expired", "already used"])
def test_an_auth_key_that_the_login_server_refuses(
    desk: Desk, nodes: Nodes, operators: str, why: str
) -> None:
    forget(desk)
    desk.edit("hk1", relay=joined())
    key = auth_key(desk.stage, "--expiration", "1s")
    time.sleep(1.1)
    if why == "already used":
        key = auth_key(desk.stage)
        call = ["/usr/local/bin/tailscale", f"--socket={THEIRS}"]
        server = f"--login-server={desk.stage.headscale.url}"
        desk.stage.run_in("hk1", [*call, "logout"])  # else the old node's key and a new one both use it
        desk.stage.run_in("hk1", [*call, "up", "--hostname=theirs", server, f"--auth-key={key}"])
    ran = desk.invoke("deploy", "--host", "hk1", env={ENVIRONMENT: key})
    assert ran.code != 0
    said = json.dumps(ran.failure())
    for words in (why, desk.stage.headscale.url, "refuses the auth key", "relay.tailscaled.auth_key"):
        assert words in said
    keep_secret(desk, key, ran)


def test_a_policy_that_hides_all_nodes_is_named_and_ours_stops_with_its_use(
    desk: Desk, nodes: Nodes, operators: str
) -> None:
    desk.edit("hk1", relay=joined())
    deployed(desk, auth_key(desk.stage))
    one, other = (f"{node.ipv4}/32" for node in nodes)
    rule = {"action": "accept", "src": [one, other], "dst": [f"{one}:*", f"{other}:*"]}
    desk.stage.hosts["hs1"].write({"etc/headscale/policy.hujson": json.dumps({"acls": [rule]})})
    policy = "sed -i 's#^  path: \"\"#  path: /etc/headscale/policy.hujson#' /etc/headscale/config.yaml"
    desk.stage.run_in("hs1", ["sh", "-c", f"{policy}; systemctl restart headscale"])
    wait_for(lambda: hidden(desk), timeout_s=60, what="the relay's tailscaled still sees nodes")
    ran = desk.invoke("verify", "--host", "hk1")
    assert "its policy hides them from it" in rung(ran, "admission")["warning"]
    assert is_online(desk)
    desk.edit("hk1", relay={"admission": "headscale"})
    settled(desk)
    assert not runs(desk)
    await_gone(desk)
    assert pid(desk) == operators


def hidden(desk: Desk) -> bool:
    """Whether our tailscaled on hk1 knows no other node."""
    status = [tailscaled.PROGRAM, f"--socket={tailscaled.SOCKET}", "status", "--json"]
    return not json.loads(desk.stage.run_in("hk1", status).stdout).get("Peer")
