"""Wrong site files, given to verbs as a person types them.

Exit code 4, every problem with path and line, and no host is contacted.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent
SITE = """\
hosts:
  hk1:
    domain: {domain}
    flavour: python
    region: {{id: 901, code: hk, name: Hong Kong}}
    ssh: {{address: 127.0.0.1, port: {port}}}
    certificate: {{source: self-signed}}
"""
SECOND = """\
  sg1:
    domain: sg1.example.org
    ipv4: 203.0.113.11
    ssh: {{port: {port}}}
    region: {{id: 901, code: sg, name: Singapore}}
    certificate: {{source: letsencrypt, agree_terms: true}}
    flavour: docker
    front: none
    flavor: docker
    ports: {{https: 3489}}
    docker: {{image: 'derper@sha256:{digest}'}}
"""


@pytest.fixture
def host() -> Iterator[socket.socket]:
    """Listen where the site's host would be contacted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def invoke(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).parent / "invoke"), *words, "--site", str(site)]
    environment = {**os.environ, "COLUMNS": "400"}
    return subprocess.run(
        argv, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def assert_not_contacted(host: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        host.accept()


@pytest.mark.parametrize("verb", ["deploy", "check", "verify", "status", "renew"])
def test_every_problem_is_listed_and_no_host_is_contacted(
    host: socket.socket, tmp_path: Path, verb: str
) -> None:
    site, port = tmp_path / "site.yml", host.getsockname()[1]
    site.write_text((SITE + SECOND).format(domain="hk1.example.org", port=port, digest="0" * 64))
    done = invoke(site, verb)
    said = done.stdout + done.stderr
    assert done.returncode == 4
    assert "line 12: hosts.sg1.region.id: 901 is taken by hosts.hk1" in said
    assert "line 16: hosts.sg1.flavor: unknown key; did you mean flavour?" in said
    assert (
        "line 17: hosts.sg1.ports.https: with its own letsencrypt, "
        "derper serves plain HTTP on any port but 443, so also on 3489" in said
    )
    assert "Traceback" not in said
    assert_not_contacted(host)


@pytest.mark.parametrize("verb", ["deploy", "check"])
def test_a_name_that_does_not_resolve_contacts_no_host(
    host: socket.socket, tmp_path: Path, verb: str
) -> None:
    site = tmp_path / "site.yml"
    site.write_text(SITE.format(domain="hk1.nowhere.invalid", port=host.getsockname()[1]))
    done = invoke(site, verb)
    assert done.returncode == 4
    assert "line 3: hosts.hk1.domain: hk1.nowhere.invalid does not resolve: " in done.stdout + done.stderr
    assert_not_contacted(host)


@pytest.mark.parametrize(
    "words",
    [
        ("deploy",),
        ("check",),
        ("renew",),
        ("withdraw", "--host", "hk1"),
        ("logs", "--host", "hk1", "--relay"),
    ],
)
def test_a_key_that_is_not_there_contacts_no_host(
    host: socket.socket, tmp_path: Path, words: tuple[str, ...]
) -> None:
    site = tmp_path / "site.yml"
    text = SITE.format(domain="localhost.localdomain", port=host.getsockname()[1])
    site.write_text(text.replace("ssh: {", "ssh: {key: none, password: 'file:none-either', "))
    done = invoke(site, *words)
    said = done.stdout + done.stderr
    assert done.returncode == 4
    assert f"line 6: hosts.hk1.ssh.key: {tmp_path}/none: No such file or directory" in said
    assert f"line 6: hosts.hk1.ssh.password: {tmp_path}/none-either: No such file or directory" in said
    assert_not_contacted(host)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("deploy --host", "--host needs a value"),  # `--host $HOST` with no HOST: not all of them
        ("check --host --json", "--host needs a value"),
        ("deploy --only", "--only needs a value"),
        ("check -o", "-o needs a value"),
        ("check -o -j", "-o needs a value"),
        ("check -h", "-h needs a value"),
        ("renew -h hk2", "did you mean --host hk1?"),
        ("verify --address=", "--address needs a value"),
        ("verify --address relay.example.org --pin abc", "'abc' is not a pin"),
        ("verify --address relay.example.org --ca /nowhere/ca.pem", "/nowhere/ca.pem: No such file"),
        ("deploy --host hk2", "did you mean --host hk1?"),
        ("logs --host elsewhere", "no host named elsewhere"),
        ("logs --host headscale", "no host named headscale in "),
        ("trust --host headscale", "no host named headscale in "),
        ("logs --host hk1 --relay --lines many", "--lines takes a number up to 1000000, not 'many'"),
        (
            "verify --address relay.example.org --stun-port many",
            "--stun-port takes a number up to 65535, not 'many'",
        ),
        (
            "verify --address relay.example.org --stun-port 70000",
            "--stun-port takes a number up to 65535, not '70000'",
        ),
        (
            "verify --address relay.example.org --host hk1",
            "--host names a host of the site, --address any other server",
        ),
        ("verify --host hk1 --ca roots.pem", "--ca goes with --address"),
        ("verify --pin 00", "--pin goes with --address"),
        ("verify --stun-port 3479", "--stun-port goes with --address"),
        ("status --html /nowhere/status.html", "/nowhere/status.html cannot be written"),
    ],
)
def test_wrong_options_are_explained(tmp_path: Path, words: str, message: str) -> None:
    site = tmp_path / "site.yml"
    site.write_text(SITE.format(domain="localhost.localdomain", port=9))
    verb, *rest = words.split()
    argv = [str(Path(sys.executable).parent / "invoke"), verb, "--site", str(site), *rest]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode in (1, 4)
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "next  invoke deploy --site /"),
        ("--relay", "--host headscale runs no relay"),
    ],
)
def test_the_control_servers_host_has_logs_of_its_own(tmp_path: Path, words: str, message: str) -> None:
    site = tmp_path / "site.yml"
    text = SITE.format(domain="localhost.localdomain", port=9)
    site.write_text(f"{text}headscale: {{url: 'https://headscale.example.org'}}\n")
    done = invoke(site, "logs", "--host", "headscale", *words.split())
    assert done.returncode == 1
    assert message in done.stdout + done.stderr


def test_a_first_site_file_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    def init(path: Path, option: str = "--path") -> tuple[int, str]:
        argv = [str(Path(sys.executable).parent / "invoke"), "init", *([option, str(path)] if option else [])]
        env = os.environ | {"DERPFLEET_SITE": str(path if not option else tmp_path / "other.yml")}
        done = subprocess.run(
            argv, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    site = tmp_path / "new" / "site.yml"
    code, said = init(site)
    assert code == 0
    assert f"invoke trust --host NAME --site {site}" in said
    assert init(site)[0] == 4
    code, said = init(site / "below.yml")
    assert code == 1
    assert f"{site / 'below.yml'} cannot be written: " in said
    for option in ("--site", ""):  # as every other verb finds it
        path = tmp_path / f"{option}.yml"
        assert init(path, option)[0] == 0 and path.exists()


def test_an_empty_word_is_no_value(tmp_path: Path) -> None:
    """`--address "$ADDRESS"` with ADDRESS empty must not prove the hosts of the site."""
    site = tmp_path / "site.yml"
    site.write_text(SITE.format(domain="localhost.localdomain", port=9))
    done = invoke(site, "verify", "--address", "")
    assert done.returncode == 1
    assert "--address needs a value" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbfhosts:\r\n  hk1:\r\n    region: 9\r\n", "line 3: hosts.hk1.region"),
        (b"hosts:\n\thk1:\n", "line 2: there is a tab where only spaces are allowed"),
        (b"", "is empty"),
        (b"\xff\xfe\x00", "line 1: is not UTF-8 text"),
        (None, "next  invoke init --path "),
    ],
)
def test_a_file_that_is_no_site_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    site = tmp_path / "site.yml"
    if content is not None:
        site.write_bytes(content)
    done = invoke(site, "check")
    assert done.returncode == 4
    assert message in done.stdout + done.stderr
