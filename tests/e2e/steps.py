"""Steps that several files share: deploy until no change is left, let two real tailscale nodes
meet, look at the served certificate."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import lab
from artefacts import go
from artefacts.image import write_derper_image
from lab.client import LabClient
from lab.headscale import USER
from lab.process import wait_for
from lab.programs import DERPER
from lab.topology import EVERY_HOST
from tests.e2e.desk import CHECKOUT, Desk, Ran

MEBIBYTE = 1 << 20
UNIT = "/etc/systemd/system/derpfleet-relay.service"


def exchange(nodes: tuple[LabClient, LabClient], code: str) -> None:
    """Send a ping and a file both ways through the relay of this code; the file has to arrive
    whole."""
    for node in nodes:
        node.wait_for_home(code, timeout_s=120)
    for one, other in (nodes, nodes[::-1]):
        # A node sends to the last home that it knows, and answers by the relay that the other used
        # last. Two nodes that talk keep each other on the old relay for up to a minute.
        deadline = time.monotonic() + 150
        while one.ping(other).relay != code:
            assert time.monotonic() < deadline, f"{one.name} does not reach {other.name} through {code}"
            time.sleep(0.5)
        transfer = one.send(other, 4 * MEBIBYTE)
        assert transfer.ok
        assert transfer.relay == code


def have_both_regions(nodes: tuple[LabClient, LabClient]) -> None:
    """Wait until the nodes have the regions of hk1 and sg1 in their map."""
    for node in nodes:
        what = f"{node.name} lacks a region"
        wait_for(lambda node=node: set(node.regions().values()) >= {"hk", "sg"}, timeout_s=60, what=what)


def who_may_connect(desk: Desk, host: str) -> list[str]:
    """Return those of three users of the host who may connect to the relay behind its front."""
    call = 'import socket; socket.create_connection(("127.0.0.1", 81), 2)'
    found = []
    for user in ("root", "www-data", "nobody"):
        argv = ["setpriv", f"--reuid={user}", "--clear-groups", "/usr/bin/python3", "-c", call]
        ran = desk.stage.run_in(host, argv, check=False)
        assert ran.returncode == 0 or "ConnectionRefusedError" in ran.stderr
        found += [user] if ran.returncode == 0 else []
    return found


def settled(desk: Desk, host: str = "hk1") -> Ran:
    """Deploy, with proof and registration; deploy again, with nothing to do."""
    ran = desk.invoke("deploy", "--host", host, timeout_s=600)
    assert ran.code == 0, ran.why()
    assert ran.proof(host)["packets_passed"]
    again = desk.invoke("deploy", "--host", host)
    assert again.code == 0, again.why()
    assert again.changed(host) == again.changed("headscale") == []
    return ran


def in_force(desk: Desk, host: str = "hk1") -> int:
    """Return the number of the generation that is in force. Fails while changes are unconfirmed."""
    ran = desk.invoke("history", "--host", host)
    assert ran.code == 0, ran.why()
    [number] = [event["number"] for event in ran.of("generation") if event["in_force"]]
    return int(number)


def unit(desk: Desk, host: str = "hk1") -> str:
    """Return the text of the relay's unit, where most of its settings are."""
    return desk.stage.run_in(host, ["cat", UNIT]).stdout


def meet(desk: Desk, nodes: tuple[LabClient, LabClient]) -> dict[str, Any]:
    """Wait until the nodes have the map that `invoke derpmap` prints, let them dial the relay
    again, and exchange data.

    Returns the relay's node in that map.
    """
    region = json.loads(desk.run("derpmap").stdout)["Regions"]["901"]
    wanted = {key: value for key, value in region["Nodes"][0].items() if value}
    for node in nodes:
        what = f"{node.name} has another map than {wanted}"
        wait_for(lambda node=node: node.derp_map()[901]["Nodes"] == [wanted], timeout_s=60, what=what)
        node.tailscale("debug", "break-derp-conns")
    exchange(nodes, "hk")
    return wanted


def rung(ran: Ran, name: str, host: str = "hk1") -> dict[str, Any]:
    return next(rung for rung in ran.proof(host)["rungs"] if rung["name"] == name)


def served_leaf(desk: Desk, port: int = 443) -> str:
    """Return the SHA-256 of the certificate that hk1 shows to the controller."""
    show = f"openssl s_client -connect hk1.derp.lab:{port} -servername hk1.derp.lab </dev/null 2>/dev/null"
    script = f"{show} | openssl x509 -outform DER | sha256sum"
    return desk.stage.run_in("controller", ["sh", "-c", script]).stdout.split()[0]


@contextmanager
def due(desk: Desk) -> Iterator[None]:
    """Let certbot find the certificate of hk1 due for renewal."""
    path, line = "/etc/letsencrypt/renewal/hk1.derp.lab.conf", "renew_before_expiry = 100 days"
    desk.stage.run_in("hk1", ["sed", "-i", f"1i {line}", path])
    try:
        yield
    finally:
        desk.stage.run_in("hk1", ["sed", "-i", "/^renew_before_expiry/d", path])


def auth_key(stage: lab.Lab, *more: str) -> str:
    """Return a key of headscale that admits one node, once, or as `more` says."""
    users = json.loads(stage.headscale.command("users", "list", "--name", USER))
    made = stage.headscale.command("preauthkeys", "create", "--user", str(users[0]["id"]), *more)
    return str(json.loads(made)["key"])


def small(
    desk: Desk, host: str, settings: Mapping[str, Any], *, acme: bool = False, map_file: str = ""
) -> None:
    """Make a site of one host: its addresses, and these settings.

    `acme`: whether the lab has its ACME server, whose certificates are the default. `map_file`: of
    a headscale whose host is not touched; "": the site has none.
    """
    site = yaml.safe_load(desk.stage.site_file.read_text())
    site.pop("headscale", None)
    if map_file:
        site["headscale"] = {"url": desk.stage.headscale.url, "map_file": map_file}
    if not acme:
        site["defaults"].pop("certificate", None)
    its_own = {key: site["hosts"][host][key] for key in ("domain", "ipv4", "ipv6", "region")}
    site["hosts"] = {host: its_own | dict(settings)}
    desk.stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))


def taken_off(desk: Desk, host: str) -> subprocess.CompletedProcess[str]:
    """Remove all of the relay from its host."""
    argv = [*desk.stage.enter, sys.executable, "-m", "tests.e2e.taken_off", str(desk.stage.site_file), host]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False)


def derper_image(stage: lab.Lab) -> str:
    """Make our image of Go's derper beside the site file; return its name there."""
    derper = go.build(DERPER, cache=stage.cache, progress=print) / "derper"
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    write_derper_image(
        stage.root / "derper.tar", derper=derper, busybox=Path("/bin/busybox"), ca_bundle=bundle
    )
    return "derper.tar"


def proved(desk: Desk, host: str) -> Ran:
    """Deploy; the packets have to pass, and a second deploy has nothing to do."""
    ran = desk.invoke("deploy", "--host", host)
    assert ran.code == 0, ran.why()
    assert ran.proof(host)["packets_passed"]
    again = desk.invoke("deploy", "--host", host)
    assert again.code == 0, again.why()
    assert again.changed(host) == []
    return ran


def relayed(desk: Desk, host: str) -> None:
    """Send packets of two real nodes through the relay of this host."""
    nodes = desk.stage.clients["site-a"], desk.stage.clients["site-b"]
    region = EVERY_HOST[host].region
    assert region
    for node in nodes:
        node.join()
        node.move_home(region[0])
    exchange(nodes, region[1])
