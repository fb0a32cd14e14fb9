"""One host goes through the relay's programs and runners, each by one edit and one deploy.

Nothing of the former relay is left after any step, and two real nodes meet at the end.
"""

from __future__ import annotations

from typing import Any

import pytest

from lab.client import LabClient
from lab.process import wait_for
from tests.e2e.desk import Desk
from tests.e2e.steps import exchange, settled, who_may_connect

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

UNIT, SOCKET = "/etc/systemd/system/derpfleet-relay.service", "/etc/systemd/system/derpfleet-relay.socket"
FILE, MESH = "/etc/supervisor/conf.d/derpfleet-relay.conf", "/var/lib/derpfleet-relay/keys"
RELEASE, PROBERS = "/opt/derpfleet/current", "/var/lib/derpfleet-relay/prober.keys"
PLACES = {UNIT, SOCKET, FILE, MESH, RELEASE, PROBERS}
LEFT = {
    ("python", "systemd"): {UNIT, SOCKET, RELEASE, PROBERS},
    ("derper", "systemd"): {UNIT, RELEASE, MESH},
    ("derper", "supervisord"): {FILE, RELEASE, MESH},
    ("derper", "docker"): {MESH},
}


def there(desk: Desk) -> set[str]:
    """Return which of the relays' places are on hk1."""
    found = desk.stage.run_in("hk1", ["ls", "--directory", *sorted(PLACES)], check=False).stdout
    return set(found.split())


def processes(desk: Desk) -> list[str]:
    """Return the commands of the relay's user on hk1, and of Docker's derper."""
    listed = desk.stage.run_in("hk1", ["ps", "-e", "-o", "user:32,comm,args"]).stdout.splitlines()
    return [line for line in listed if line.startswith("derpfleet-relay ") or " derper " in line]


def switch(desk: Desk, program: str, under: str, **settings: Any) -> None:
    """Edit, deploy with proof, deploy again without a change; compare what is left on the host."""
    desk.edit("hk1", relay={"program": program, "under": under}, **settings)
    settled(desk)
    assert there(desk) == LEFT[program, under]
    assert who_may_connect(desk, "hk1") == ["root", "www-data"]
    assert len(processes(desk)) == 1, processes(desk)
    known = desk.stage.run_in("hk1", ["supervisorctl", "status", "derpfleet-relay"], check=False).stdout
    assert ("RUNNING" in known) == (under == "supervisord")
    containers = desk.stage.run_in(
        "hk1", ["sh", "-c", "docker ps --all --quiet 2>/dev/null || true"]
    ).stdout.split()
    assert len(containers) == (under == "docker")


def test_one_host_goes_through_every_program_and_runner(
    desk: Desk, nodes: tuple[LabClient, LabClient], derper_archive: str
) -> None:
    key = desk.stage.run_in("hk1", ["cat", "/var/lib/derpfleet-relay/derper.key"]).stdout
    switch(desk, "derper", "systemd")
    status = desk.stage.run_in("hk1", ["sh", "-c", "cat /proc/$(pidof derper)/status"]).stdout.split("\n")
    assert {"CapEff:\t0000000000000400", "NoNewPrivs:\t1"} <= set(status)
    ask = ["curl", "--max-time", "2", "http://hk1.derp.lab:81/"]
    assert desk.stage.run_in("controller", ask, check=False).returncode != 0  # the firewall closes it

    switch(desk, "derper", "supervisord")
    restarted(desk)
    stopped_and_started(desk)
    switch(desk, "derper", "docker", docker={"archive": derper_archive})
    switch(desk, "python", "systemd")
    exchange(nodes, "hk")
    switch(desk, "derper", "supervisord")
    switch(desk, "derper", "systemd")
    switch(desk, "python", "systemd")
    assert desk.stage.run_in("hk1", ["cat", "/var/lib/derpfleet-relay/derper.key"]).stdout == key
    exchange(nodes, "hk")


def restarted(desk: Desk) -> None:
    """Kill derper: supervisord starts it again, and the next deploy has nothing to do."""
    desk.stage.run_in("hk1", ["sh", "-c", "kill -9 $(pidof derper)"])
    wait_for(
        lambda: desk.invoke("verify", "--host", "hk1").code == 0, timeout_s=30, what="derper stays away"
    )
    again = desk.invoke("deploy", "--host", "hk1")
    assert (again.code, again.changed("hk1")) == (0, []), again.why()


def stopped_and_started(desk: Desk) -> None:
    """A relay that is stopped by hand under supervisord is started by a deploy."""
    desk.stage.run_in("hk1", ["supervisorctl", "stop", "derpfleet-relay"])
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert ran.changed("hk1") == ["program:derpfleet-relay"]


def test_a_renewal_is_served_by_each_runner_of_derper(desk: Desk, nodes: tuple[LabClient, LabClient]) -> None:
    """derper reads its certificate once: where it serves TLS itself, a renewal restarts it."""
    for under in ("systemd", "supervisord"):
        desk.edit("hk1", relay={"program": "derper", "under": under}, front="none")
        settled(desk)
        ran = desk.invoke("renew", "--host", "hk1", "--force")
        assert ran.code == 0, ran.why()
        assert ran.proof("hk1")["packets_passed"]
    exchange(nodes, "hk")
    ran = desk.invoke("deploy", "--host", "sg1")
    assert ran.code == 0, ran.why()
    ran = desk.invoke("withdraw", "--host", "hk1")
    assert ran.code == 0, ran.why()
    seen = desk.invoke("status", "--host", "hk1")
    assert [row["proof"] for row in seen.of("status")] == ["withdrawn"]
    assert FILE not in there(desk)
