"""Other distributions than Debian: deployed, proved, used by real nodes, and left as they were.

The roots are made of Debian's programs in the likeness of Rocky Linux 9 and Ubuntu 24.04
(`lab.enterprise`, `lab.ubuntu`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

import lab
from lab.enterprise import OWN_PYTHON
from lab.pythons import found
from tests.e2e.desk import Desk
from tests.e2e.far import counted, deployed_in_few_turns, unchanged_in_few_turns
from tests.e2e.steps import derper_image, relayed, taken_off
from tests.support.labs import own_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
HOSTS = ("el1", "ub1")
# Of a whole first deploy: the run and the firewall's confirmation. bench/README.md says which they
# are. 7.6 MB of releases are sent, and sshd takes 2 MiB of them in a turn.
CONNECTIONS, FIRST_TURNS = 2, 20
PARTS = ("hs1", *HOSTS, "acme", "site-a", "site-b")
# Paths that the scripts of packages make.
STAYS = {
    "el1": re.compile(r"/etc/nginx(/snippets)?$|/var/lib/nginx"),
    "ub1": re.compile(r"/etc/nginx/sites-enabled/default$|/etc/rc.\.d/|/var/lib/nginx/|/var/www(/html|$)"),
}
# Where a deploy writes. Left out are the package manager's own folders, and what units leave there.
LOOKED_AT = ("/etc", "/opt", "/srv", "/usr/local", "/var/lib", "/var/www")
OWNER = {"el1": ("rpm", "--query", "--file"), "ub1": ("dpkg", "--search")}
LEFT_OUT = ("/var/lib/dnf", "/var/lib/rpm", "/var/lib/dpkg", "/var/lib/apt", "/var/lib/systemd", "/srv/repo")

MAIN = "/etc/nginx/nginx.conf"
BLOG = """server {
    listen 80;
    listen [::]:80;
    server_name blog.example.org;
    default_type text/plain;
    location / { return 200 "The blog.\\n"; }
}
"""
EMPTY = "/srv/mirror/linux/centos/9/x86_64/stable"
HOLD = """
import fcntl, time
with open("/var/lib/rpm/.rpm.lock", "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    time.sleep(15)
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    with own_lab(tmp_path_factory, "distributions", only=PARTS) as own:
        yield own


def paths(desk: Desk, host: str) -> set[str]:
    """Return the paths on the host where a deploy writes."""
    left_out = [word for folder in LEFT_OUT for word in ("-path", folder, "-prune", "-o")]
    argv = ["find", *LOOKED_AT, "-xdev", *left_out, "-print"]
    return set(desk.stage.run_in(host, argv, check=False).stdout.splitlines())


def owned(desk: Desk, host: str, path: str) -> bool:
    """Whether a package has brought the path."""
    argv = OWNER[host]
    return desk.stage.run_in(host, [*argv, path], check=False).returncode == 0


@pytest.fixture(scope="module")
def bare(desk: Desk) -> dict[str, set[str]]:
    """Return the paths on each host before its first deploy."""
    return {host: paths(desk, host) for host in HOSTS}


@pytest.mark.parametrize("host", HOSTS)
def test_a_relay_of_ours(desk: Desk, bare: dict[str, set[str]], host: str) -> None:
    with counted(desk, host) as first:
        ran = desk.invoke("deploy", "--host", host, timeout_s=600)
    assert ran.code == 0, ran.why()
    assert ran.proof(host)["packets_passed"]
    unchanged_in_few_turns(desk, host)
    assert first["connections"] == CONNECTIONS and first["turns"] <= FIRST_TURNS
    assert "package:nginx" in ran.changed(host)
    relayed(desk, host)


@pytest.mark.skipif(found(OWN_PYTHON) is None, reason=f"pyenv has no Python {OWN_PYTHON}, and el1 Debian's")
def test_enterprise_linux_gets_a_newer_python_for_the_relay(desk: Desk) -> None:
    """Its own runs the agent, under whichever name it is there."""
    there = desk.stage.hosts["el1"]
    unit = there.run(["cat", "/etc/systemd/system/derpfleet-relay.service"]).stdout
    assert "ExecStart=/usr/bin/python3.11 " in unit
    there.run(["mv", "/usr/bin/python3", "/usr/bin/python3.away"])
    try:
        assert desk.invoke("deploy", "--host", "el1").changed("el1") == []
        [row] = desk.invoke("status", "--host", "el1").of("status")
        assert row["proof"] == "proved"
    finally:
        there.run(["mv", "/usr/bin/python3.away", "/usr/bin/python3"])


@pytest.mark.parametrize("host", HOSTS)
def test_nothing_of_a_relay_is_left(desk: Desk, bare: dict[str, set[str]], host: str) -> None:
    """Packages stay, with nginx as they have it."""
    done = taken_off(desk, host)
    assert done.returncode == 0, done.stderr
    again = taken_off(desk, host)
    assert (again.returncode, json.loads(again.stdout)) == (0, []), again.stderr
    new = [path for path in sorted(paths(desk, host) - bare[host]) if not STAYS[host].match(path)]
    assert [path for path in new if not owned(desk, host, path)] == []
    assert desk.listening(host) <= {"tcp/22", "udp/5353", "udp/5355", "tcp/5355"}


def test_another_site_on_enterprise_linux_stays(desk: Desk) -> None:
    """It is in conf.d, beside nginx.conf as the package has it, with the welcome page in it."""
    there = desk.stage.hosts["el1"]
    there.write({"etc/nginx/conf.d/blog.conf": BLOG})
    there.run(["systemctl", "enable", "--now", "nginx"])
    ran = desk.invoke("deploy", "--host", "el1")
    assert ran.code == 0, ran.why()
    assert "http://blog.example.org:80/" in ran.of("neighbours", "el1")[0]["urls"]
    assert f"file:{MAIN}" not in ran.changed("el1")
    ask = ["curl", "--silent", "--resolve", "blog.example.org:80:127.0.0.1", "http://blog.example.org/"]
    assert there.run(ask).stdout == "The blog.\n"
    assert taken_off(desk, "el1").returncode == 0
    assert there.run(ask).stdout == "The blog.\n"
    there.run(["rm", "/etc/nginx/conf.d/blog.conf"])
    there.run(["systemctl", "disable", "--now", "nginx"])


def test_derper_on_enterprise_linux(desk: Desk) -> None:
    """Docker is from Docker's repository, here an empty one beside the lab's, and so not podman."""
    there = desk.stage.hosts["el1"]
    there.run(["mkdir", "-p", EMPTY])
    there.run(["createrepo_c", "--quiet", EMPTY])
    serve = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", "/srv/mirror", "8999"]
    there.run(["systemd-run", "--quiet", "--unit=mirror", *serve])
    settings = {"archive": derper_image(desk.stage), "packages": "docker", "mirror": "http://127.0.0.1:8999"}
    desk.edit("el1", flavour="docker", docker=settings)
    try:
        ran = deployed_in_few_turns(desk, "el1")
        assert {"package:docker-ce", "container:derpfleet-derper"} <= set(ran.changed("el1"))
        relayed(desk, "el1")
    finally:
        desk.edit("el1", flavour=None, docker=None)
        there.run(["systemctl", "stop", "mirror"])
    assert taken_off(desk, "el1").returncode == 0
    there.run(["systemctl", "disable", "--now", "docker.service", "docker.socket", "containerd"], check=False)


def test_enterprise_linuxs_lock_is_waited_for(desk: Desk) -> None:
    there = desk.stage.hosts["el1"]
    there.run(["dnf", "--quiet", "--assumeyes", "remove", "nftables"])
    lock = ["systemd-run", "--quiet", "--unit=dnf-automatic", "python3", "-c", HOLD]
    there.run(lock)
    ran = desk.invoke("deploy", "--host", "el1")
    assert ran.code == 0, ran.why()
    assert any("of dnf-automatic.service" in event["reason"] for event in ran.of("waiting", "el1"))
    assert "package:nftables" in ran.changed("el1")


def test_ubuntus_first_boot_is_waited_for(desk: Desk) -> None:
    """cloud-init works with packages, and the login is a user with sudo-rs."""
    there = desk.stage.hosts["ub1"]
    assert "sudo-rs" in there.run(["sudo", "--version"]).stderr
    there.run(["apt-get", "remove", "--quiet", "--yes", "nftables"])
    there.run(["systemctl", "start", "cloud-final.service"])
    desk.edit("ub1", ssh={"user": "auto"})
    try:
        ran = desk.invoke("deploy", "--host", "ub1")
    finally:
        desk.edit("ub1", ssh=None)
    assert ran.code == 0, ran.why()
    assert any("of cloud-final.service" in event["reason"] for event in ran.of("waiting", "ub1"))
    assert "package:nftables" in ran.changed("ub1")
