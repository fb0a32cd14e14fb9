"""The 26 resources for derpfleet's engine.

`python -m bench.deploy.ours` converges one host, as the peers' programs do.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.login import Login
from engine.resource import Command, Directory, File, Group, Package, Resource, Service, Symlink, Sysctl, User
from engine.run import Job, Verb, converge
from inventory.model import Ssh


def resources(contents: Path) -> list[Resource]:
    """Return the resources that `wanted.py` lists, from the contents in that folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - during the login

    variables = json.loads((contents / "variables.json").read_text())
    templates = Environment(
        loader=FileSystemLoader(contents),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )

    def rendered(name: str) -> bytes:
        return templates.get_template(name).render(variables).encode()

    def copied(name: str, folder: str = "/etc/derpbench") -> File:
        return File(path=f"{folder}/{name}", content=contents / name)

    unit = copied("derpbench.service", "/etc/systemd/system")
    environment = File(path="/etc/derpbench/relay.env", content=rendered("relay.env.j2"))
    return [
        *(Package(package=name) for name in ("ca-certificates", "curl", "nftables")),
        Group(group="derpbench"),
        User(user="derpbench", group="derpbench"),
        *(Directory(path=path) for path in ("/etc/derpbench", "/opt/derpbench", "/opt/derpbench/releases")),
        Directory(path="/var/lib/derpbench", mode="0750", owner="derpbench", group="derpbench"),
        Directory(path="/var/lib/derpbench/webroot", owner="derpbench", group="derpbench"),
        copied("relay.json"),
        copied("map.json"),
        copied("limits.conf"),
        copied("relay.bin", "/opt/derpbench/releases"),
        File(
            path="/etc/derpbench/relay.key",
            content=contents / "relay.key",
            mode="0640",
            group="derpbench",
            secret=True,
        ),
        unit,
        environment,
        File(path="/etc/derpbench/nginx.conf", content=rendered("nginx.conf.j2")),
        Symlink(path="/opt/derpbench/current", target="releases"),
        Symlink(path="/etc/derpbench/enabled.conf", target="nginx.conf"),
        Sysctl(key="net.ipv4.tcp_keepalive_time", value="600"),
        Sysctl(key="net.ipv4.tcp_fin_timeout", value="30"),
        Command(
            title="first copy",
            argv=("cp", "/etc/derpbench/relay.json", "/var/lib/derpbench/first.json"),
            creates="/var/lib/derpbench/first.json",
        ),
        Service(unit="ssh.service"),
        Service(unit="dpkg-db-backup.timer"),
        Service(unit="derpbench.service", restart_on=(unit.id, environment.id)),
    ]


def login_to(name: str, address: str, port: int, key: str, known_hosts: str) -> Login:
    """Return a login as root on that host."""
    return Login(
        name,
        Ssh(address=address, port=port, user="root", key=key),
        address=address,
        known_hosts=Path(known_hosts),
        base=Path("/"),
    )


def main() -> int:
    """Converge the host that the arguments name; print the counts as JSON."""
    parser = argparse.ArgumentParser()
    for name in ("--address", "--key", "--known-hosts", "--contents", "--runs"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    login = login_to("bench", given.address, given.port, given.key, given.known_hosts)
    with ThreadPoolExecutor(1) as pool:
        wanted = pool.submit(resources, Path(given.contents))
        job = Job(verb=Verb.DEPLOY, plan=lambda _: wanted.result())  # after the host has answered
        outcome = converge(login, job, runs=Path(given.runs))
    print(json.dumps({"counts": outcome.counts, "failures": [failure.what for failure in outcome.failures]}))
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main())
