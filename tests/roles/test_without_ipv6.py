"""A host whose kernel has no IPv6: real nginx, our relay, and the refusals."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.facts import FileFact, Output
from engine.resource import Command, Package
from inventory.model import Host
from roles import certificate, firewall
from roles.front import nginx
from roles.front.nginx import neighbours
from roles.wiring import wire
from tests.roles.test_nginx_live import CHECKOUT, DOMAIN, await_port, temp_paths, write_configuration
from tests.support.acme import free_ports
from tests.support.debian import program
from tests.support.facts import DEBIAN_12, NO_NEIGHBOURS

HOST = Host(
    name="hk1",
    domain=DOMAIN,
    region={"id": 901, "code": "hk", "name": "HK"},
    certificate={"source": "self-signed"},
)
WITHOUT_IPV6 = (sys.executable, "-m", "tests.support.no_ipv6")


def known(status: int, **said: str) -> Any:
    """Return the facts of a host that answered `test -e` so, and of commands that failed so."""
    commands = {name: Output(status=1, stdout="", stderr=text) for name, text in said.items()}
    return replace(DEBIAN_12, commands={"ipv6": Output(status=status, stdout="", stderr=""), **commands})


def compiled(facts: Any) -> list[Any]:
    return list(nginx.http_resources(HOST, facts, certificate.issued(HOST)))


def judged(folder: Path, conf: Path) -> subprocess.CompletedProcess[str]:
    argv = [*WITHOUT_IPV6, program("nginx", "nginx"), "-t", "-p", str(folder), "-c", str(conf)]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_nginx_is_installed_without_the_welcome_page_which_would_fail(tmp_path: Path) -> None:
    """Its package starts it (postinst), and fails if that fails."""
    (port,) = free_ports(1)
    sites = tmp_path / "sites-enabled"
    conf = tmp_path / "nginx.conf"
    http = f"{temp_paths(tmp_path)} access_log off; include {sites}/*;"
    conf.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}}\nhttp {{ {http} }}\n")
    command, package = compiled(known(1))[:2]
    assert isinstance(command, Command) and isinstance(package, Package)
    assert package.needs == (command.id,)
    argv, unless = (
        [word.replace("/etc/nginx", str(tmp_path)) for word in words]
        for words in (command.argv, command.unless)
    )
    assert subprocess.run(unless, check=False).returncode == 1
    subprocess.run(argv, check=True)
    assert subprocess.run(unless, check=False).returncode == 0
    assert judged(tmp_path, conf).returncode == 0
    page = tmp_path / "page"
    page.write_text(f"server {{ listen {port}; listen [::]:{port}; }}")  # as Debian's
    (sites / "default").unlink()
    (sites / "default").symlink_to(page)
    failed = judged(tmp_path, conf)
    assert failed.returncode == 1 and f"[::]:{port} failed (97: Address family" in failed.stderr
    subprocess.run(argv, check=True)
    assert judged(tmp_path, conf).returncode == 0 and page.stat().st_size


def test_our_servers_and_our_relay_work_there(tmp_path: Path) -> None:
    http, https, backend, stun = free_ports(4)
    host = HOST.model_copy(
        update={"ports": HOST.ports.model_copy(update={"http": http, "https": https, "backend": backend})}
    )
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={DOMAIN}"]
    make += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "chain.pem")]
    subprocess.run(make, check=True, capture_output=True)
    done = judged(tmp_path, write_configuration(tmp_path, host))
    assert done.returncode == 0, done.stderr
    flags = ["-a", f":{backend}", "-http-port", "-1", "-stun-port", str(stun), "-hostname", DOMAIN]
    flags += ["-c", str(tmp_path / "key.json")]
    relay = subprocess.Popen([*WITHOUT_IPV6, sys.executable, "-m", "relay", *flags], cwd=CHECKOUT)
    try:
        await_port(backend, relay)
    finally:
        relay.terminate()
        relay.wait(20)


def torn(*listens: str) -> Any:
    """Return the facts after an installation that failed there, with files beside the page."""
    content = "server { listen 80 default_server; listen [::]:80 default_server; }\n"
    page = FileFact(content=content, sha256="", mode="0644", owner="root", group="root")
    digest = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    lines = "".join(f"{file}:1:listen [::]:80;\n" for file in (neighbours.STOCK_LINK, *listens))
    said = known(
        1, nginx="nginx: [emerg] socket() [::]:80 failed (97: Address family not supported by protocol)"
    )
    printed = {"nginx_conffiles": f" {neighbours.STOCK_SITE} {digest}\n", "nginx_listens": lines}
    return replace(
        said,
        tools={"nginx": "/usr/sbin/nginx"},
        files={
            neighbours.STOCK_LINK: page,
            "/var/lib/dpkg/info/nginx.list": replace(page, content="/usr/sbin/nginx\n"),
        },
        commands=said.commands
        | {name: Output(status=0, stdout=text, stderr="") for name, text in printed.items()},
    )


def test_an_installation_that_has_failed_there_is_gone_on_with() -> None:
    assert nginx.refusals(HOST, torn()) == []
    assert [r.id for r in compiled(torn())[:2]] == ["command:no welcome page of nginx", "package:nginx"]
    ids = {resource.id for resource in compiled(torn())}
    assert {f"file:{neighbours.MAIN}", f"absent:{neighbours.STOCK_LINK}"} <= ids
    (refusal,) = nginx.refusals(HOST, torn("/etc/nginx/sites-enabled/shop"))
    assert "is already invalid" in refusal and "[::]:80 failed" in refusal


@pytest.mark.parametrize(
    "facts", [DEBIAN_12, known(0), replace(known(1), tools={"nginx": "/usr/sbin/nginx"})], ids=str
)
def test_elsewhere_nginx_comes_as_its_package_has_it(facts: Any) -> None:
    assert not any(isinstance(resource, Command) for resource in compiled(facts))


def test_a_kernel_that_has_no_tables_for_both_families_is_refused_with_a_way_out() -> None:
    says = "Error: Could not process rule: Operation not supported\n"
    (refusal,) = firewall.refusals(HOST, wire(HOST), known(1, nft_inet=says), NO_NEIGHBOURS)
    assert "hk1 has no nftables tables of the family inet" in refusal and "firewall.mode to off" in refusal
    for other in ("", "Error: Operation not permitted (you must be root)\n"):
        assert firewall.refusals(HOST, wire(HOST), known(1, nft_inet=other), NO_NEIGHBOURS) == []
