"""A host is as it was found once a relay was taken off: a bare one, and one with other sites.

Trees are compared to the byte, with modes, owners and links, and so are units, nftables, the
kernel's settings, accounts and sockets. Packages stay, with what their scripts make.
"""

from __future__ import annotations

import json
import re

import pytest
import yaml

import lab
from lab import existing_site
from tests.e2e.desk import CHECKOUT, Desk

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]
ONLY = ["hk1", "sg1", "acme"]

# Prints everything that a deploy may change, as {name: looks}.
LOOK = r"""
import hashlib, json, os, stat, subprocess
LOOKED_AT = "/etc /home /opt /root /srv /usr/lib/systemd /usr/local /var".split()
LEFT_OUT = "/var/cache /var/log /var/tmp /var/lib/apt /var/lib/dpkg /root/.cache".split()
found = {}
def look(path):
    info = os.lstat(path)
    looks = [oct(info.st_mode), info.st_uid, info.st_gid]
    if stat.S_ISLNK(info.st_mode):
        looks.append(os.readlink(path))
    elif stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            looks.append(hashlib.sha256(file.read()).hexdigest()[:16])
    found[path] = str(looks)
for top in LOOKED_AT:
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in LEFT_OUT]
        for name in folders + names:
            look(os.path.join(folder, name))
def said(*argv):
    argv = ("sh", "-c", '"$0" "$@" 2>/dev/null', *argv)  # the bare host has no nft
    return subprocess.run(argv, stdout=subprocess.PIPE).stdout.decode()
for name in os.listdir("/run"):
    if "derpfleet" in name:
        look("/run/" + name)
for line in said("systemctl", "list-unit-files", "--no-legend", "--plain").splitlines():
    found["unit file " + line.split()[0]] = line.split()[1]
types = "--type=service,socket,timer,path"
for line in said("systemctl", "list-units", "--no-legend", "--plain", "--state=active", types).splitlines():
    found["active unit " + line.split()[0]] = "active"
for line in said("ss", "-Hltun").splitlines():
    found["socket %s %s" % (line.split()[0], line.split()[4])] = "listens"
for key in ("net.core.somaxconn", "net.core.default_qdisc", "net.ipv4.tcp_congestion_control"):
    found["sysctl " + key] = said("sysctl", "--values", key)
for base in ("passwd", "group"):
    for line in said("getent", base).splitlines():
        found[base + " " + line.split(":")[0]] = line
found["nft"] = said("nft", "list", "ruleset")
found["crontabs"] = said("sh", "-c", "crontab -l")
print(json.dumps(found))
"""
# What the scripts of packages make, and what the system notes by itself.
OF_PACKAGES = re.compile(
    r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|/etc/\.pwd\.lock$|/etc/ld\.so\.cache$"
    r"|/etc/rc.\.d/|/etc/nginx/(modules-enabled|sites-enabled/default$)|/etc/ssl/certs"
    r"|/var/lib/(nginx|systemd|private|ucf|polkit-1|pam|dbus|logrotate|update-)"
    r"|/var/www(/html(/index.*)?)?$|/etc/systemd/system/(sysinit\.target\.wants|dbus-org)"
)
OF_SYSTEM = re.compile(r"(active unit|unit file) (run-|user|session|systemd-|apt-|phpsession|dbus-|e2scrub)")


def looks(desk: Desk, host: str) -> dict[str, str]:
    return dict(json.loads(desk.stage.run_in(host, ["python3", "-c", LOOK], timeout_s=120).stdout))


def changes(desk: Desk, host: str, before: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return (before, after) by name of all that is other than before and no package's."""
    after = looks(desk, host)
    names = [name for name in sorted(before.keys() | after) if before.get(name) != after.get(name)]
    return {
        name: (before.get(name, ""), after.get(name, ""))
        for name in names
        if not OF_PACKAGES.match(name) and not OF_SYSTEM.match(name) and not owned(desk, host, name)
    }


def owned(desk: Desk, host: str, name: str) -> bool:
    """Whether a package has brought the path or the unit."""
    kind, _, rest = name.rpartition(" ")
    path = {"": name, "unit file": f"/usr/lib/systemd/system/{rest}"}.get(kind, "")
    known_as = [path, path.removeprefix("/usr")] if path else []
    asked = [desk.stage.run_in(host, ["dpkg", "--search", one], check=False) for one in known_as]
    return any(one.returncode == 0 for one in asked)


@pytest.fixture(scope="module")
def desk(stage: lab.Lab) -> Desk:
    """A site without a headscale: a person pastes the map."""
    site = yaml.safe_load(stage.site_file.read_text())
    del site["headscale"]
    stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))
    return Desk(stage)


def put_on(desk: Desk, host: str) -> None:
    """Deploy twice, so that there are two generations."""
    for connections in (512, 1024):
        desk.edit(host, relay={"open": True, "connections_per_address": connections})
        ran = desk.invoke("deploy", "--host", host, timeout_s=600)
        assert ran.code == 0, ran.why()
        assert ran.proof(host)["packets_passed"]


def take_off(desk: Desk, host: str, *verb: str) -> None:
    """Remove all of the relay, and once more, when there is nothing to do."""
    ran = desk.invoke(*verb, "--host", host)
    assert ran.code == 0, ran.why()
    again = desk.invoke(*verb, "--host", host)
    assert (again.code, again.changed(host)) == (0, []), again.why()


def is_printed(shown: str, command: str) -> None:
    """The README shows lines of this output, with other numbers, times and names."""
    readme = (CHECKOUT / "README.md").read_text()
    block = re.split(r"\n\n|\n```", readme.partition(f"$ {command}\n")[2])[0]
    printed = iter([masked(line) for line in shown.splitlines()])
    assert block and all(masked(line) in printed for line in block.splitlines()), shown


def masked(line: str) -> str:
    """Return the line with # for what differs from run to run, and as for site.yml here."""
    without_seconds = re.sub(r"  [\d.]+ m?s$| --site \S+", "", line)  # a quick step has none
    return re.sub(r"\b[0-9a-f]{8,}\b|\S+@\S+|[\d.,:]+", "#", without_seconds).strip()


@pytest.fixture(scope="module")
def bare(desk: Desk) -> dict[str, str]:
    """The looks of hk1, which has a relay then."""
    before = looks(desk, "hk1")
    put_on(desk, "hk1")
    assert any("derpfleet" in name for name in changes(desk, "hk1", before))
    return before


@pytest.mark.usefixtures("bare")
def test_history_and_rollback_print_what_the_readme_shows(desk: Desk) -> None:
    is_printed(desk.run("history", "--host", "hk1").stdout, "invoke history --host hk1")
    is_printed(desk.run("rollback", "--host", "hk1").stdout, "invoke rollback --host hk1")


@pytest.mark.usefixtures("bare")
def test_a_host_with_other_peoples_things(desk: Desk) -> None:
    """A site and nginx's welcome page, rules, a kernel setting, a user and a cron line."""
    there = desk.stage.hosts["sg1"]
    blog = existing_site.install(desk.stage, "sg1", "blog.example.org")
    there.run(["apt-get", "install", "--quiet", "--yes", "nftables", "cron"], timeout_s=300)
    there.write({"etc/sysctl.d/50-theirs.conf": "net.core.somaxconn = 1234\n"})
    there.write({"etc/cron.d/theirs": "5 4 * * * root /bin/true\n"})
    there.write({"etc/nginx/conf.d/limits.conf": "limit_req_zone $binary_remote_addr zone=a:1m rate=9r/s;\n"})
    script = (
        "sysctl --quiet --load /etc/sysctl.d/50-theirs.conf; useradd --system theirs; "
        "systemctl restart nginx; nft add table inet theirs; "
        "nft add set inet theirs blocked '{ type ipv4_addr; }'"
    )
    there.run(["sh", "-ec", script])
    before = looks(desk, "sg1")
    assert "/etc/nginx/sites-enabled/default" in before and before["sysctl net.core.somaxconn"] == "1234\n"

    put_on(desk, "sg1")
    live = "/etc/letsencrypt/live/sg1.derp.lab/fullchain.pem"
    there.write({"etc/theirs.conf": f"certificate = {live}\n"})
    assert desk.invoke("uninstall", "--host", "sg1").code == 1  # in service
    assert desk.invoke("withdraw", "--host", "sg1").code == 0
    refused = desk.invoke("uninstall", "--host", "sg1")
    assert refused.code == 1
    assert "/etc/theirs.conf on sg1 refers to /etc/letsencrypt/live/sg1.derp.lab" in refused.failure()["why"]
    there.run(["test", "-e", live])
    there.run(["rm", "/etc/theirs.conf"])

    take_off(desk, "sg1", "rollback", "--to", "found")

    assert changes(desk, "sg1", before) == {}
    page = "/etc/nginx/sites-enabled/default"  # of the package, which was there before
    assert looks(desk, "sg1")[page] == before[page]
    fetch = ["curl", "--silent", "--insecure", "--resolve", "blog.example.org:443:127.0.0.1"]
    assert there.run([*fetch, "https://blog.example.org/"]).stdout == blog.text


def test_a_bare_host(desk: Desk, bare: dict[str, str]) -> None:
    """It is the last relay of the site, which `withdraw` would not take out."""
    stop = ["systemctl", "disable", "--now", "derpfleet-relay.socket", "derpfleet-relay.service"]
    desk.stage.run_in("hk1", stop)
    take_off(desk, "hk1", "uninstall")
    assert changes(desk, "hk1", bare) == {}
