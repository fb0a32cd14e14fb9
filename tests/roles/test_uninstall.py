"""Deploy and uninstall with the real agent, on a stage: the host is as it was before.

Real are the agent, users, groups, files, nftables, kernel settings, the certificate's program and
openssl. Small fakes stand in for the package manager, systemd, nginx, Docker and certbot (`fakes/`,
tests/agent/fakes). Nothing listens, so health checks are left out.
"""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from io import BytesIO
from ipaddress import IPv4Address
from pathlib import Path

import pytest

import roles
from artefacts.image import ImageArtefact
from artefacts.release import Release
from artefacts.shipment import Shipment
from engine.facts import Listener
from engine.resource import Command, File, Package, Resource
from engine.run import Job, Outcome, Verb
from engine.session import Session
from inventory.model import Host, Site
from inventory.secrets import Secret
from lab.certificates import make_server_certificate
from tests.agent.conftest import NEWEST
from tests.agent.driver import Agent, content_of, fakes
from tests.agent.generations import keep
from tests.roles.cases import FOLDER, deployable, load, shipment
from tests.support.sshd import Sshd

FAKES = {path.name: path.read_text() for path in (Path(__file__).parent / "fakes").iterdir()}
STARTED, LARGE = time.time(), 32 * 1024
_machines_own: dict[tuple[str, int, int], str] = {}  # by path, inode and time of change
UNIT = "[Service]\nExecStart=/bin/true\n"
NGINX_CONF = "http {\n    include /etc/nginx/conf.d/*.conf;\n    include /etc/nginx/sites-enabled/*;\n}\n"
PLACEHOLDER = "server {\n    listen 80 default_server;\n    server_name _;\n}\n"
BLOG = "server {\n    listen 80;\n    server_name blog.example.org;\n}\n"
DOCKER = {"var/fake/bin/docker": FAKES["docker"], "etc/systemd/system/docker.service": UNIT}
# Package -> the files that it brings.
PAYLOADS = {
    "nginx-common": {
        "etc/nginx/nginx.conf": NGINX_CONF,
        "etc/nginx/sites-available/default": PLACEHOLDER,
        "etc/nginx/sites-enabled/.keep": "",
        "etc/nginx/conf.d/.keep": "",
        "etc/systemd/system/nginx.service": UNIT,
        "var/fake/bin/nginx": FAKES["nginx"],
        "var/www/html/index.html": "Welcome to nginx!\n",
    },
    "libnginx-mod-stream": {"etc/nginx/modules-enabled/50-mod-stream.conf": "load_module stream.so;\n"},
    "supervisor": {
        "etc/supervisor/conf.d/.keep": "",
        "etc/systemd/system/supervisor.service": UNIT,
        "var/fake/bin/supervisorctl": FAKES["supervisorctl"],
    },
    "docker.io": DOCKER | {"var/lib/dpkg/info/docker.io.list": "/usr/bin/dockerd\n"},
    "docker-ce": DOCKER | {"var/lib/dpkg/info/docker-ce.list": "/usr/bin/dockerd\n"},
    "certbot": {
        "var/fake/bin/certbot": FAKES["certbot"],
        "etc/letsencrypt/cli.ini": "preconfigured-renewal = True\n",
    },
    "cron": {"etc/systemd/system/cron.service": UNIT},
    "systemd-timesyncd": {"etc/systemd/system/systemd-timesyncd.service": UNIT},
}
NGINX_POSTINST = """#!/bin/sh
apt-get install nginx-common
ln -s /etc/nginx/sites-available/default /etc/nginx/sites-enabled/default
"""
STAMP = "var/lib/systemd/timers/stamp-derpfleet-certificate.timer"
TESTED = "derpfleet-nginx-test.service.active"  # it ends by itself, but not in the fake
# Where a relay host has files. Folders of the machine's own package manager and Docker are left
# out.
LOOKED_AT = ("etc", "opt", "srv", "usr/local", "var")
LEFT_OUT = {
    "var/fake",
    "var/lib/apt",
    "var/lib/containerd",
    "var/lib/docker",
    "var/lib/dpkg",
    "var/cache",
    "var/tmp",
}
# Backups that useradd and its like keep of the files that they change, and their lock.
BACKUPS = {
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "etc/.pwd.lock",
}
PASSED_OVER = LEFT_OUT | BACKUPS

# Of the certificates that are brought along, or written by another program.
_, CHAIN, KEY = make_server_certificate("hk1.example.org", IPv4Address("203.0.113.10"))

NGINX = Listener(proto="tcp", address="0.0.0.0", port=0, pid=9, program="nginx", unit="nginx.service")


def sites() -> list[str]:
    """Return one case for each different site file."""
    found = {(FOLDER / name / "site.yml").read_text(): name for name in reversed(deployable())}
    return sorted(found.values())


def deploy(host: Host, site: Site, ship: Shipment, nginx_has: tuple[int, ...] = ()) -> Job:
    """Return the job: the host as its roles want it, without health checks.

    No program listens, so none can be asked. `nginx_has`: ports on which the fake nginx is reported
    to listen.
    """

    def plan(session: Session) -> list[Resource]:
        there = [replace(NGINX, port=port) for port in nginx_has]
        facts = replace(session.facts, listening=(*session.facts.listening, *there))
        return [unasked(resource) for resource in roles.compile_host(host, site, facts, ship)]

    return Job(verb=Verb.DEPLOY, plan=plan, ask=roles.ask(host, site), about=lambda _: {})


def removal(host: Host) -> Job:
    """Return the job: nothing of the relay host is left."""

    def plan(session: Session) -> list[Resource]:
        assert roles.absence_refusals(host, session.facts) == []
        return [unasked(resource) for resource in roles.compile_absent(host, session.facts)]

    return Job(verb=Verb.DEPLOY, plan=plan, ask=roles.ask_absent())


def unasked(resource: Resource) -> Resource:
    if isinstance(resource, Command) and resource.title == "served certificate":
        return replace(resource, argv=("true",), unless=("true",))
    if isinstance(resource, File) and isinstance(resource.content, Path):  # a case's stand-in
        resource = replace(resource, content=CHAIN) if resource.content.name == "chain.pem" else resource
    asked = {field.name: () for field in fields(resource) if field.name in ("healthy", "watch", "listens")}
    return replace(resource, **asked)


@pytest.fixture
def new_host(new_sshd: Callable[..., Sshd], tmp_path: Path) -> Callable[[], Agent]:
    """Return a function that starts an agent on a bare host."""
    payloads = {
        f"/var/fake/payload/{name}/{path}": text
        for name, files in PAYLOADS.items()
        for path, text in files.items()
    }
    files = fakes() | payloads | {
        "/var/fake/payload/nginx.postinst": NGINX_POSTINST,
        "/var/fake/store/certbot": FAKES["certbot"],
        "/var/lib/systemd/timers/.keep": "",
    }
    installed = ("/usr/local/bin/docker", "/usr/bin/docker", "/usr/sbin/nginx")
    without = [path for path in installed if Path(path).exists()]
    return lambda: Agent(new_sshd(accounts=(), files=files, without=without), NEWEST, tmp_path / "runs")


@pytest.fixture
def ship(tmp_path: Path) -> Callable[[Host], Shipment]:
    """Return a function that makes a small shipment whose archives can be unpacked."""
    main = 'import os, sys\ndef main(): os.execv("/var/fake/store/certbot", ["certbot", *sys.argv[1:]])\n'
    certbot = {"certbot/main.py": main, "certbot/_internal/constants.py": "CLI_DEFAULTS = {}\n"}
    tailscaled = {"bin/tailscaled": FAKES["tailscale"]}
    ref = tmp_path / "image"
    ref.write_text("derpfleet/derper:0123456789ab")

    def make(host: Host) -> Shipment:
        named = shipment(host, host.relay.tailscaled.auth_key)
        brought = {host.certificate.key: Secret(KEY.decode())} if host.certificate.key else {}
        return replace(
            named,
            secrets={**named.secrets, **brought},
            relay_release=Release(archive(tmp_path / "relay", {"relay/__init__.py": ""}), "a1" * 32),
            certbot_release=Release(archive(tmp_path / "certbot", certbot), "b2" * 32),
            tailscaled_release=Release(archive(tmp_path / "tailscaled", tailscaled), "d4" * 32),
            image=ImageArtefact(ref.read_text(), ref),
        )

    return make


def archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            entry.mode = 0o755 if text.startswith("#!") else 0o644
            tar.addfile(entry, BytesIO(text.encode()))
    return path


def tree(agent: Agent) -> dict[str, str]:
    """Return type, mode, owner and content of every path where a relay host has files."""
    root = agent.stage.root
    found = {path: described(root, path) for folder in LOOKED_AT for path in below(root, folder)}
    live = ("sysctl", "net.core.somaxconn", "net.ipv4.tcp_congestion_control", "net.core.default_qdisc")
    return found | {"nftables": agent.stage.run("nft", "list", "ruleset").stdout} | {
        "kernel": agent.stage.run(*live).stdout
    }


def described(root: Path, path: str) -> str:
    """Return what a change of the path would change.

    The machine's own files are read once for all tests, and large ones never, unless they were
    touched.
    """
    file = root / path
    info = file.lstat()
    if info.st_ctime > STARTED:
        return content_of(file)
    if info.st_size >= LARGE:
        return "untouched"
    known = path, info.st_ino, info.st_ctime_ns
    if known not in _machines_own:
        _machines_own[known] = content_of(file)
    return _machines_own[known]


def below(root: Path, folder: str) -> Iterator[str]:
    """Yield the paths below a folder, without links' targets."""
    for entry in os.scandir(root / folder):
        path = f"{folder}/{entry.name}"
        if path in PASSED_OVER or not (entry.is_symlink() or entry.is_file() or entry.is_dir()):
            continue
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from below(root, path)


def done(outcome: Outcome) -> Outcome:
    assert outcome.failures == []
    return outcome


def install(agent: Agent, packages: Iterable[str]) -> None:
    done(agent.run([Package(package=name) for name in packages]))


def forget_agent(agent: Agent) -> None:
    """Remove what a run of the agent itself leaves."""
    agent.stage.run("rm", "-r", "/var/lib/derpfleet")


def uninstall(agent: Agent, host: Host) -> None:
    """Uninstall twice: the second time there is nothing to do."""
    done(agent.run_job(removal(host)))
    again = done(agent.run_job(removal(host)))
    assert again.changed == []


@pytest.mark.parametrize("name", sites())
def test_a_bare_host_is_as_it_was_but_for_packages(
    name: str, new_host: Callable[[], Agent], ship: Callable[[Host], Shipment]
) -> None:
    host, site, _ = load(name)
    agent = new_host()
    for path, text in ((host.certificate.fullchain_path, CHAIN), (host.certificate.key_path, KEY)):
        if path:
            put(agent, path, text.decode())
    done(agent.run_job(deploy(host, site, ship(host)), judge=keep))
    assert list((agent.stage.root / "opt/derpfleet").iterdir()) != []
    stamp = agent.stage.root / STAMP
    stamp.touch()
    packages = sorted(path.name for path in (agent.stage.root / "var/fake/packages").iterdir())

    uninstall(agent, host)

    other = new_host()
    install(other, packages)
    forget_agent(other)
    assert different(tree(agent), tree(other)) == {}
    units = {path.name for path in (agent.stage.root / "var/fake/units").iterdir()} - {TESTED}
    assert not [unit for unit in units if unit.startswith(("derpfleet", "nginx"))]
    assert list((agent.stage.root / "var/fake").glob("docker/*/*")) == []
    assert list((agent.stage.root / "var/fake").glob("supervisor/*")) == []


@pytest.mark.parametrize("name", ["bare", "front-taken-away", "no-front-acme", "docker"])
def test_other_peoples_things_stay(
    name: str, new_host: Callable[[], Agent], ship: Callable[[Host], Shipment]
) -> None:
    """Their site in nginx, their certificate, their container and image, their rules."""
    host, site, _ = load(name)
    agent = new_host()
    install(agent, ["nginx", "certbot", "docker.io", "nftables", "cron", "systemd-timesyncd"])
    forget_agent(agent)
    put(agent, "/etc/nginx/conf.d/blog.conf", BLOG)
    put(agent, "/etc/docker/daemon.json", '{"debug": true}\n')
    for argv in (
        [
            "certbot",
            "--server",
            "https://acme-v02.api.letsencrypt.org/directory",
            "--cert-name",
            "blog.example.org",
        ],
        ["docker", "pull", "--quiet", "shop:1"],
        ["docker", "run", "--detach", "--name", "shop", "--label", "a=b", "shop:1"],
        ["nft", "add", "table", "inet", "theirs"],
        ["systemctl", "enable", "nginx.service"],
        ["systemctl", "start", "nginx.service"],
    ):
        assert agent.stage.run("env", "PATH=/var/fake/bin:/usr/sbin:/usr/bin", *argv).returncode == 0, argv
    before, units = tree(agent), state(agent)

    done(agent.run_job(deploy(host, site, ship(host)), judge=keep))
    assert tree(agent) != before
    uninstall(agent, host)

    assert different(tree(agent), before) == {}
    assert state(agent) >= units


def test_the_default_page_of_others_is_not_joined_by_the_welcome_page(
    new_host: Callable[[], Agent], ship: Callable[[Host], Shipment]
) -> None:
    """Both would claim to be the default, and nginx would take neither."""
    host, site, _ = load("bare")
    agent = new_host()
    install(agent, ["nginx"])
    forget_agent(agent)
    done(agent.run_job(deploy(host, site, ship(host)), judge=keep))
    claiming = BLOG.replace("listen 80;", "listen 80 default_server;")
    put(agent, "/etc/nginx/conf.d/blog.conf", claiming)
    uninstall(agent, host)
    assert not (agent.stage.root / "etc/nginx/sites-enabled/default").exists()


def test_an_nginx_that_only_had_its_welcome_page_runs_on(
    new_host: Callable[[], Agent], ship: Callable[[Host], Shipment]
) -> None:
    host, site, _ = load("bare")
    agent = new_host()
    install(agent, ["nginx"])
    for verb in ("enable", "start"):
        agent.stage.run("env", "PATH=/var/fake/bin:/usr/bin:/bin", "systemctl", verb, "nginx.service")
    forget_agent(agent)
    before = {unit for unit in state(agent) if "nginx.service" in unit}
    assert before
    done(agent.run_job(deploy(host, site, ship(host)), judge=keep))
    uninstall(agent, host)
    assert {unit for unit in state(agent) if "nginx.service" in unit} == before
    assert (agent.stage.root / "etc/nginx/sites-enabled/default").is_symlink()


def test_a_certificate_that_another_site_names_stays_until_it_does_not(
    new_host: Callable[[], Agent], ship: Callable[[Host], Shipment]
) -> None:
    host, site, _ = load("bare")
    agent = new_host()
    done(agent.run_job(deploy(host, site, ship(host)), judge=keep))
    live = f"/etc/letsencrypt/live/{host.domain}"
    put(agent, "/etc/haproxy/haproxy.cfg", f"bind :8443 ssl crt {live}/both.pem\n")
    put(agent, "/etc/old.conf", f"# it was {live}\ncrt /etc/letsencrypt/live/other.example.org/x.pem\n")
    before = tree(agent)
    said: list[str] = []

    def plan(session: Session) -> list[Resource]:
        said.extend(roles.absence_refusals(host, session.facts))
        return []

    agent.run_job(Job(verb=Verb.CHECK, plan=plan, ask=roles.ask_absent()))
    assert len(said) == 1
    assert said[0].startswith(f"/etc/haproxy/haproxy.cfg on hk1 refers to {live}, which goes")
    assert tree(agent) == before
    (agent.stage.root / "etc/haproxy/haproxy.cfg").unlink()
    uninstall(agent, host)


def put(agent: Agent, path: str, text: str) -> None:
    target = agent.stage.root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def state(agent: Agent) -> set[str]:
    """Return which fake units run and start at boot, and which containers, images and
    programs there are."""
    fake = agent.stage.root / "var/fake"
    return {
        str(path.relative_to(fake))
        for pattern in ("units/*", "docker/*/*", "supervisor/*")
        for path in fake.glob(pattern)
    }


def different(after: dict[str, str], before: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return (before, after) of each path that differs."""
    paths = sorted(after.keys() | before.keys())
    pairs = {path: (before.get(path, ""), after.get(path, "")) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def test_an_uninstall_that_dies_goes_on(
    new_host: Callable[[], Agent], ship: Callable[[Host], Shipment]
) -> None:
    """A package that cannot be downloaded ends the run. Until then that package's file stays."""
    host, site, _ = load("bare")
    agent = new_host()
    done(agent.run_job(deploy(host, site, ship(host))))
    put(agent, "/var/fake/install.fails", "no network\n")
    outcome = agent.run_job(removal(host))
    assert [failure.id for failure in outcome.failures] == ["conffile:/etc/nginx/nginx.conf"]
    assert "Written by derpfleet" in (agent.stage.root / "etc/nginx/nginx.conf").read_text()
    (agent.stage.root / "var/fake/install.fails").unlink()
    uninstall(agent, host)
    assert (agent.stage.root / "etc/nginx/nginx.conf").read_text() == NGINX_CONF
    assert not (agent.stage.root / "opt/derpfleet").exists()


def test_two_variants_that_one_site_file_had_one_after_the_other_both_go(
    new_host: Callable[[], Agent], ship: Callable[[Host], Shipment]
) -> None:
    agent = new_host()
    before = tree(agent)
    install(
        agent,
        ["nginx", "docker.io", "nftables", "systemd-timesyncd", "ca-certificates", "openssl", "apparmor"],
    )
    for name in ("bare", "docker"):
        host, site, _ = load(name)
        done(agent.run_job(deploy(host, site, ship(host))))
    host, site, _ = load("no-front-acme")
    uninstall(agent, host)
    left = {path for path in different(tree(agent), before) if "derpfleet" in path or "letsencrypt" in path}
    assert left == set()


@pytest.mark.parametrize("nginx_has", [(80, 443), ()])
def test_a_lost_certificate_is_ordered_before_a_running_nginx_is_touched(
    nginx_has: tuple[int, ...], new_host: Callable[[], Agent], ship: Callable[[Host], Shipment]
) -> None:
    """K6c: a server that runs is never worse off. One that cannot start is moved out of the way."""
    host, site, _ = load("bare")
    agent = new_host()
    done(agent.run_job(deploy(host, site, ship(host))))
    https = agent.stage.root / "etc/nginx/sites-enabled/zz-derpfleet-https.conf"
    before = https.read_text()
    agent.stage.run("rm", "-r", "/etc/letsencrypt")
    put(agent, "/var/fake/certbot.fails", "")
    job = deploy(host, site, ship(host), nginx_has)
    assert [failure.id for failure in agent.run_job(job).failures] == ["command:certificate"]
    assert https.exists() == bool(nginx_has)
    (agent.stage.root / "var/fake/certbot.fails").unlink()
    done(agent.run_job(job))
    assert https.read_text() == before
