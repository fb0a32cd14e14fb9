"""Ways in: password, jump host, ~/.ssh/config; and how keys are pinned."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paramiko import HostKeys

from engine.login import Login, SshConfigWrong, Unreachable
from engine.report import Report
from engine.ssh import offered_host_key
from engine.ssh_errors import fingerprint
from engine.transport import run_once
from fleet.shared.fleet import Fleet
from fleet.trust import ask_person, logins, trust
from inventory.model import Host, Region, Site, Ssh
from tests.engine.conftest import PYTHON, login_to
from tests.support.sshd import Sshd

NewSshd = Callable[..., Sshd]


def test_password_login(new_sshd: NewSshd, sudo_password: str) -> None:
    server = new_sshd(password_login=True)
    ssh = Ssh(address="127.0.0.1", port=server.port, user="admin", password=sudo_password, python=PYTHON)
    login = Login("hk1", ssh, address="", known_hosts=server.known_hosts, base=Path("/"))
    assert run_once(login, ["id", "-un"]) == (0, "root\n")


def test_a_jump_host_is_blamed_for_what_it_did_itself(sshd: Sshd, tmp_path: Path) -> None:
    def refused(jump: str, known_hosts: Path) -> Unreachable:
        ssh = Ssh(address="hk1.example.org", user="root", key=str(sshd.key), jump=jump, python=PYTHON)
        with pytest.raises(Unreachable) as error:
            run_once(Login("hk1", ssh, address="", known_hosts=known_hosts, base=Path("/")), ["true"])
        return error.value

    unknown = refused(f"root@127.0.0.1:{sshd.port}", tmp_path / "none")
    assert (unknown.what, unknown.where) == (
        "the jump host's key is not known",
        f"root@127.0.0.1:{sshd.port}",
    )
    assert f"has no entry for [127.0.0.1]:{sshd.port}" in unknown.why
    assert unknown.next == "compare the key with the host's own and pin it: invoke trust --host hk1"
    stranger = refused(f"nobody-here@127.0.0.1:{sshd.port}", sshd.known_hosts)
    assert stranger.what == "jump host: login refused"
    assert stranger.where == f"nobody-here@127.0.0.1:{sshd.port}"


def test_a_jump_host_is_trusted_as_a_host_is(sshd: Sshd, fleet: Fleet) -> None:
    [hop] = login_to(
        sshd, jump=f"root@127.0.0.1:{sshd.port}", known_hosts=Path(fleet.site.known_hosts)
    ).hops()
    assert trust(fleet, [hop], replace=False, expected="", confirm=lambda _: True) == 0
    assert run_once(hop, ["echo", "there"]) == (0, "there\n")


def test_a_jump_host_gets_no_password_of_the_host(tmp_path: Path) -> None:
    ssh = Ssh(
        address="192.0.2.7",
        user="admin",
        key="key",
        key_passphrase="cmd:echo p",
        password="cmd:echo s",
        jump="me@192.0.2.1",
    )
    login = Login("hk1", ssh, address="", known_hosts=tmp_path / "known_hosts", base=tmp_path)
    [hop] = login.hops()
    assert login.credentials()["password"] == login.sudo_password() == "s"
    assert hop.credentials() == {"key_filename": ["key"], "passphrase": "p"}
    assert hop.sudo_password() is None


def test_the_site_knows_its_jump_hosts(fleet: Fleet) -> None:
    host = fleet.site.hosts["hk1"].model_copy(
        update={"ssh": Ssh(address="192.0.2.7", user="root", jump="a@192.0.2.1,b@[2001:db8::1]:2200")}
    )
    site = fleet.site.model_copy(update={"hosts": {"hk1": host}})
    found = logins(Fleet(site, fleet.report), ["hk1"])
    assert [(one.user, one.key_name) for one in found] == [
        ("a", "192.0.2.1"),
        ("b", "[2001:db8::1]:2200"),
        ("root", "192.0.2.7"),
    ]


def test_ssh_config_is_read(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        f"Host relay-one\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User root\n  IdentityFile {sshd.key}\n"
    )
    login = Login("hk1", Ssh(address="relay-one"), address="", known_hosts=sshd.known_hosts, base=tmp_path)
    assert run_once(login, ["echo", "configured"]) == (0, "configured\n")


def configured(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **ssh: Any) -> Login:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(exist_ok=True)
    (tmp_path / ".ssh" / "config").write_text(text)
    return Login(
        "hk1", Ssh(address="relay-one", **ssh), address="", known_hosts=tmp_path / "none", base=tmp_path
    )


@pytest.mark.parametrize(
    ("text", "jump", "hops"),
    [
        ("Host *\n  ProxyJump bastion\n", None, ["bastion"]),
        ("Host *\n  ProxyJump ssh://you@bastion:2200\n", None, ["[bastion]:2200"]),
        ("Host relay-one\n  ProxyJump none\nHost *\n  ProxyJump bastion\n", None, []),
        ("Host *\n  ProxyJump bastion\n", "none", []),  # the site's word counts
        ("Host *\n  ProxyCommand none\n", None, []),
        ("Host *\n  ProxyJump relay-one\n", None, []),  # a host is not its own jump host
    ],
)
def test_none_is_no_jump_host(
    text: str, jump: str | None, hops: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = configured(text.replace("Host *", "Host relay-*"), tmp_path, monkeypatch, jump=jump)
    assert [hop.key_name for hop in login.hops()] == hops
    assert (bool(login.jump), login.proxy_command) == (bool(hops), None)


def test_no_jump_host_and_no_proxy_command_is_a_direct_connection(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"port": sshd.port, "user": "root", "key": str(sshd.key)}
    text = "Host relay-one\n  HostName 127.0.0.1\n  ProxyJump none\n  ProxyCommand none\n"
    text += "Host *\n  ProxyJump nowhere.invalid\n"
    login = configured(text, tmp_path, monkeypatch, **settings)
    login.known_hosts = sshd.known_hosts
    assert run_once(login, ["echo", "direct"]) == (0, "direct\n")


INCLUDED = "User admin\nHost relay-*\n  Port 2201\n"


@pytest.mark.parametrize(
    ("text", "user", "port"),
    [
        ("Include conf.d/*\n", "admin", 2201),
        ("Include ~/.ssh/conf.d/one ~/nowhere\n", "admin", 2201),
        ('include="conf.d/one"\n', "admin", 2201),
        ("Host other\n  Include conf.d/one\nHost *\n  Port 2202\n", "root", 2202),
        ("Host relay-*\n  Include conf.d/one\n  Port 2202\n", "admin", 2201),  # the first value counts
        ("Host relay-*\n  Port 2202\n  Include conf.d/one\n", "admin", 2202),
        ("Host other\n  Include conf.d/one\n  Port 2202\n", "root", 22),  # the block goes on after it
        ("Match host relay-*\n  Include conf.d/one\n", "admin", 2201),
        ("Match host other\n  Include conf.d/one\n", "root", 22),
        ("Include conf.d/two\n", "admin", 2201),
        ("Include nowhere\n", "root", 22),
    ],
)
def test_a_config_includes_others_as_with_ssh(
    text: str, user: str, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh" / "conf.d").mkdir(parents=True)
    (tmp_path / ".ssh" / "conf.d" / "one").write_text(INCLUDED)
    (tmp_path / ".ssh" / "conf.d" / "two").write_text("Include conf.d/one\n")
    login = configured(text, tmp_path, monkeypatch)
    assert (login.user, login.port) == (user, port)


def test_files_that_include_each_other_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SshConfigWrong, match="cannot be used") as error:
        configured("Include config\n", tmp_path, monkeypatch)
    assert "more than 16 files include each other" in error.value.why


@pytest.mark.parametrize(
    "text", ["nonsense\n", "Host relay-*\n  Port many\n", "Host relay-*\n  ProxyJump you@bastion:many\n"]
)
def test_a_config_that_ssh_would_refuse_is_reported(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SshConfigWrong) as error:
        configured(text, tmp_path, monkeypatch)
    assert (error.value.exit_code, error.value.host, error.value.what) == (
        4,
        "hk1",
        "~/.ssh/config cannot be used",
    )
    assert error.value.why
    assert error.value.next


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    host = Host(name="hk1", domain="hk1.example.org", region=Region(id=901, code="hk", name="Hong Kong"))
    site = Site(
        path=str(tmp_path / "site.yml"),
        hosts={"hk1": host},
        known_hosts=str(tmp_path / "pins" / "known_hosts"),
    )
    return Fleet(site, Report(json_lines=True))


def pinned(fleet: Fleet, server: Sshd) -> Login:
    return login_to(server, known_hosts=Path(fleet.site.known_hosts))


@pytest.mark.parametrize(
    "text",
    [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA me@example\n",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n",
    ],
)
def test_a_key_file_that_is_no_private_key_is_named(sshd: Sshd, tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(Unreachable) as error:
        run_once(login_to(sshd, key=str(tmp_path / "key")), ["true"])
    assert (error.value.what, error.value.next[:35]) == (
        "the private key cannot be used",
        "check ssh.key (it must be the priva",
    )


def test_a_passphrase_that_does_not_open_the_key_is_named(sshd: Sshd, tmp_path: Path) -> None:
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "right", "-f", str(tmp_path / "key")]
    subprocess.run(make, check=True)
    with pytest.raises(Unreachable) as error:
        run_once(login_to(sshd, key=str(tmp_path / "key"), key_passphrase="cmd:echo wrong"), ["true"])
    assert error.value.what == "the private key cannot be used"


def test_without_a_terminal_to_ask_at_trust_says_what_to_give_instead(
    sshd: Sshd, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    printing = Fleet(fleet.site, Report())
    assert trust(printing, [pinned(fleet, sshd)], replace=False, expected="", confirm=ask_person) == 1
    assert "give it with --fingerprint" in " ".join(capsys.readouterr().out.split())


def test_trust_pins_only_what_a_person_accepted(sshd: Sshd, fleet: Fleet) -> None:
    login = pinned(fleet, sshd)
    assert trust(fleet, [login], replace=False, expected="", confirm=lambda _: False) == 1
    assert not Path(fleet.site.known_hosts).exists()
    assert trust(fleet, [login], replace=False, expected="", confirm=lambda _: True) == 0
    assert run_once(login, ["true"])[0] == 0


def test_trust_accepts_a_fingerprint_for_an_answer(sshd: Sshd, fleet: Fleet) -> None:
    login = pinned(fleet, sshd)

    def never(_: str) -> bool:
        raise AssertionError("asked")

    shown = fingerprint(offered_host_key(login))
    kind, digest = shown.split()
    for other in ("SHA256:somethingelse", digest[-1], digest[1:], digest.removeprefix("SHA256:"), kind):
        assert trust(fleet, [login], replace=False, expected=other, confirm=never) == 1
        assert not Path(fleet.site.known_hosts).exists()
    for right in (digest, shown):
        Path(fleet.site.known_hosts).unlink(missing_ok=True)
        assert trust(fleet, [login], replace=False, expected=right, confirm=never) == 0
        assert (
            trust(fleet, [login], replace=False, expected=other, confirm=never) == 1
        )  # also when another one is pinned
        assert run_once(login, ["true"])[0] == 0


def test_trust_refuses_a_changed_key_unless_it_is_to_be_replaced(
    sshd: Sshd, new_sshd: NewSshd, fleet: Fleet
) -> None:
    pins = Path(fleet.site.known_hosts)
    pins.parent.mkdir()
    others = f"# ours\n@cert-authority *.org ssh-rsa AAAA\na.org {sshd.host_key}\n"
    pins.write_text(f"{others}[127.0.0.1]:{sshd.port} {new_sshd().host_key}\n")
    with pytest.raises(Unreachable) as error:
        trust(fleet, [pinned(fleet, sshd)], replace=False, expected="", confirm=lambda _: True)
    assert error.value.what == "the host shows another key than the pinned one"
    assert trust(fleet, [pinned(fleet, sshd)], replace=True, expected="", confirm=lambda _: True) == 0
    assert pins.read_text() == f"{others}[127.0.0.1]:{sshd.port} {sshd.host_key}\n"
    assert run_once(pinned(fleet, sshd), ["true"])[0] == 0


@pytest.mark.parametrize("names", ["*", "{name}", "{hashed}"])
def test_a_revoked_key_is_never_accepted(sshd: Sshd, fleet: Fleet, names: str) -> None:
    """Neither by a login that finds it pinned, too, nor by trust."""
    name = f"[127.0.0.1]:{sshd.port}"
    pins = Path(fleet.site.known_hosts)
    pins.parent.mkdir()
    marked = names.format(name=name, hashed=HostKeys.hash_host(name))
    pins.write_text(f"{name} {sshd.host_key}\n@revoked {marked} {sshd.host_key}\n")
    with pytest.raises(Unreachable, match="the host key is REVOKED") as error:
        run_once(pinned(fleet, sshd), ["true"])
    assert "invoke trust --host hk1 --replace" in error.value.next
    for replace in (False, True):
        with pytest.raises(Unreachable, match="the host key is REVOKED"):
            trust(fleet, [pinned(fleet, sshd)], replace=replace, expected="", confirm=lambda _: True)


def test_an_unusable_known_hosts_is_named(sshd: Sshd, fleet: Fleet) -> None:
    pins = Path(fleet.site.known_hosts)
    pins.parent.mkdir()
    pins.write_bytes(b"@cert-authority * ssh-rsa AAAA\n\xff|1| ssh-ed25519 \xff\n|1|a ssh-rsa AAAA\n")
    with pytest.raises(Unreachable, match="the host key is not known") as error:
        run_once(pinned(fleet, sshd), ["true"])
    assert "only an @cert-authority: certificates of hosts are not supported" in error.value.why
    assert "line 2: the key is not base64" in error.value.why
    assert "line 3: the hashed name is cut off; it is skipped" in error.value.why
    with pins.open("ab") as file:
        file.write(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n".encode())
    assert run_once(pinned(fleet, sshd), ["true"])[0] == 0
    pins.unlink()
    pins.mkdir()
    with pytest.raises(Unreachable, match="known_hosts cannot be read"):
        run_once(pinned(fleet, sshd), ["true"])
