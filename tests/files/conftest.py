"""Shared by the tests of files/: the certificate program as a host runs it.

With our shipped certbot, a real ACME server and a real nginx.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from artefacts.programs import CERTBOT
from artefacts.release import build_release
from inventory.checkout import CACHE, CHECKOUT
from roles.front import nginx as front
from tests.relay.live import eventually
from tests.support.acme import Pebble, free_ports, pebble
from tests.support.debian import program
from tests.support.facts import DEBIAN_12
from tests.support.releases import unpack

PROGRAM = CHECKOUT / "files" / "certificate.py"
DOMAIN = "hk1.example.org"
NGINX = """\
{user}daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
{places}
    server {{
        listen 127.0.0.1:{http};
        location ^~ /.well-known/acme-challenge/ {{ root {folder}/webroot; }}
    }}
    include {folder}/https*.conf;
}}
"""
HTTPS = """\
server {{
    listen 127.0.0.1:{https} ssl;
    ssl_certificate {live}/fullchain.pem;
    ssl_certificate_key {live}/privkey.pem;
}}
"""


def succeeded(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode == 0, done.stderr
    return True


@pytest.fixture(scope="session")
def certbot(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of certbot, from a release made for the Python that runs the tests."""
    facts = replace(DEBIAN_12, python=sys.version_info[:3], arch=platform.machine(), libc=platform.libc_ver())
    release = build_release(CERTBOT, facts, cache=CACHE)
    folder = tmp_path_factory.mktemp("certbot")
    unpack(release, folder)
    return str(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running


@dataclass
class Stage:
    """One host's certificate: a folder in place of its /etc, and an nginx in front."""

    folder: Path
    certbot: str
    server: Pebble
    https: int
    stack: ExitStack
    binary: str = field(default_factory=lambda: program("nginx", "nginx"))

    @property
    def live(self) -> Path:
        return self.folder / "letsencrypt" / "live" / DOMAIN

    def configure(self, **changed: Any) -> None:
        """Write the configuration as the role does; `acme` is merged, the rest replaced."""
        dirs = [
            word
            for name in ("work", "logs")
            for word in (f"--{name}-dir", str(self.folder / "letsencrypt"))
        ]
        nginx = [self.binary, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        acme = {
            "server": self.server.url,
            "names": [DOMAIN],
            "profile": "classic",
            "environment": {},
            "limits": {},
            "account": None,
            "stops": None,
            "contact": None,
            "ca": str(self.server.ca),
            "certbot": self.certbot,
            "authenticator": ["--webroot", "--webroot-path", str(self.folder / "webroot")],
            "hook": f"{sys.executable} {PROGRAM} --config {self.folder / 'certificate.json'}",
        } | changed.pop("acme", {})
        acme["authenticator"] = [*acme["authenticator"], *dirs]
        config = {
            "domain": DOMAIN,
            "fullchain": str(self.live / "fullchain.pem"),
            "key": str(self.live / "privkey.pem"),
            "served_at": f"127.0.0.1:{self.https}",
            "patience_s": 3,
            "copies": None,
            "test": asdict(front.TEST) | {"argv": [*nginx, "-t"], "words": [*nginx, "-t"]},
            "reload": [*nginx, "-s", "reload"],
            "withdrawal": None,
            "acme": acme,
        } | changed
        (self.folder / "certificate.json").write_text(json.dumps(config))

    def deploy(self) -> None:
        """Start nginx, get the first certificate, and serve it."""
        self.start_nginx()
        self.must("obtain")
        self.serve_https()
        self.must("deploy")

    def await_served(self) -> None:
        """Wait until the certificate is served: at first old workers of nginx answer, too."""
        eventually(lambda: self.run("served").returncode == 0)

    def must(self, *words: str) -> None:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(PROGRAM), "--config", str(self.folder / "certificate.json"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=110)

    def serial(self) -> str:
        argv = ["openssl", "x509", "-noout", "-serial", "-in", str(self.live / "fullchain.pem")]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def forget_account(self) -> None:
        """Forget the account, so that the next order proves the name again.

        Once in a hundred Pebble accepts what the account proved before.
        """
        shutil.rmtree(self.folder / "letsencrypt" / "accounts")

    def forget_suggestion(self) -> None:
        """Let certbot ask the authority again when the certificate is due."""
        path = self.folder / "letsencrypt" / "renewal" / f"{DOMAIN}.conf"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith("ari_retry_after")))

    def start_nginx(self) -> None:
        places = "".join(
            f"    {name}_temp_path {self.folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root; " if os.geteuid() == 0 else ""
        text = NGINX.format(user=user, folder=self.folder, http=self.server.http_port, places=places)
        (self.folder / "nginx.conf").write_text(text)
        process = subprocess.Popen(
            [self.binary, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        deadline = time.monotonic() + 10
        while not (self.folder / "nginx.pid").exists() or not (self.folder / "nginx.pid").read_text():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)

    def serve_https(self) -> None:
        (self.folder / "https.conf").write_text(HTTPS.format(https=self.https, live=self.live))
        os.kill(int((self.folder / "nginx.pid").read_text()), signal.SIGHUP)


@pytest.fixture
def stage(tmp_path: Path, certbot: str, server: Pebble) -> Iterator[Stage]:
    (tmp_path / "webroot").mkdir()
    (https,) = free_ports(1)
    with ExitStack() as stack:
        made = Stage(tmp_path, certbot, server, https, stack)
        made.configure()
        yield made
