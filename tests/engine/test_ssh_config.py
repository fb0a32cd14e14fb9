"""~/.ssh/config as people have it: followed as ssh does, refused by name, or named in an error."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from paramiko import Transport

from engine import login as login_module
from engine.login import Login, SshConfigWrong, Unreachable, _ways
from engine.ssh import offered_host_key
from engine.ssh_config import read
from engine.ssh_options import NotSupported, dropped
from engine.transport import run_once
from inventory.model import Ssh
from tests.engine.conftest import PYTHON
from tests.support.sshd import Sshd, make_key

Configure = Callable[..., Login]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Return `configure(text, **ssh)`: a login to the host relay-one with this ~/.ssh/config."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(login_module, "SYSTEM_CONFIG", str(tmp_path / "etc" / "ssh_config"))
    (tmp_path / ".ssh").mkdir()

    def configured(text: str, *, known_hosts: Path = Path("/dev/null"), **ssh: Any) -> Login:
        (tmp_path / ".ssh" / "config").write_text(text)
        site = Ssh(**({"address": "relay-one", "python": PYTHON} | ssh))
        return Login("hk1", site, address="", known_hosts=known_hosts, base=tmp_path)

    return configured


def by_key(server: Sshd, more: str = "") -> str:
    """Return the lines that lead to a stage."""
    where = f"  HostName 127.0.0.1\n  Port {server.port}\n  User root\n  IdentityFile {server.key}\n"
    return f"Host relay-one\n{where}{more}"


def test_a_host_key_alias_is_the_name_of_the_pin(configure: Configure, sshd: Sshd, tmp_path: Path) -> None:
    pins = tmp_path / "pins"
    pins.write_text(f"hk1-of-ours {sshd.host_key}\n")
    login = configure(by_key(sshd, "  HostKeyAlias hk1-of-ours\n"), known_hosts=pins)
    assert login.key_name == "hk1-of-ours"
    assert run_once(login, ["echo", "there"]) == (0, "there\n")


TOKENS = "%h %p %r %n %k %% %d %u"


def test_tokens_of_a_proxy_command_are_those_of_ssh(configure: Configure, tmp_path: Path) -> None:
    text = f"Host relay-one\n  HostName 192.0.2.7\n  ProxyCommand nc {TOKENS}\n"
    login = configure(text, user="admin", port=2200)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    expected = f"nc 192.0.2.7 2200 admin relay-one relay-one % {tmp_path} {user}"
    assert login.proxy_command == expected


PIPE = (
    "import os,socket,sys,threading as t; s=socket.create_connection((sys.argv[1],int(sys.argv[2]))); "
    "w=lambda: [s.sendall(b) for b in iter(lambda: os.read(0,9999),b\"\")] and s.shutdown(1); "
    "t.Thread(target=w,daemon=True).start(); [os.write(1,b) for b in iter(lambda: s.recv(9999),b\"\")]"
)


def test_a_proxy_command_gets_in_with_tokens(configure: Configure, sshd: Sshd) -> None:
    line = f"  ProxyCommand {sys.executable} -c '{PIPE}' %h %p # to %r at %n, 100 %%\n"
    login = configure(by_key(sshd, line), known_hosts=sshd.known_hosts)
    assert run_once(login, ["echo", "there"]) == (0, "there\n")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ProxyCommand nc %h %x", "the token %x"),
        ("ProxyCommand nc %h %", "the token %"),
        ("RevokedHostKeys /etc/ssh/revoked", "RevokedHostKeys"),
        ("KnownHostsCommand /usr/bin/keys %H", "KnownHostsCommand"),
        ("BindInterface wg0", "BindInterface"),
        ("ProxyUseFdpass yes", "ProxyUseFdpass yes"),
        ("CertificateFile ~/.ssh/id-cert.pub", "CertificateFile"),
        ("PKCS11Provider /usr/lib/opensc.so", "PKCS11Provider"),
        ("RequiredRSASize 3072", "RequiredRSASize 3072"),
        ("Match localnetwork 10.0.0.0/8\n  ProxyJump bastion", "Match localnetwork"),
        ("Match !tagged vpn\n  ProxyJump bastion", "Match tagged"),
        ("Match host relay-one version OpenSSH_9*\n  Port 2200", "Match version"),
        ("IdentityFile ~/.ssh/${NOT_SET_HERE}", "NOT_SET_HERE"),
        ("AddressFamily ipv6", "ipv6"),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused_by_name(
    configure: Configure, text: str, name: str
) -> None:
    with pytest.raises(SshConfigWrong) as error:
        configure(text + "\n")
    assert name in error.value.why
    assert error.value.next


@pytest.mark.parametrize("value", ["none", "no"])
def test_a_setting_that_is_off_is_not_refused(configure: Configure, value: str) -> None:
    configure(f"Host *\n  RevokedHostKeys {value}\n  ProxyUseFdpass {value}\n  PKCS11Provider {value}\n")


@pytest.mark.parametrize(
    ("text", "jump", "command"),
    [
        ("ProxyCommand none\nProxyJump bastion\n", None, None),
        ("ProxyCommand nc %h %p\nProxyJump bastion\n", None, "nc relay-one 22"),
        ("ProxyJump bastion\nProxyCommand nc %h %p\n", "bastion", None),
        ("ProxyJump NONE\nProxyCommand nc %h %p\n", None, "nc relay-one 22"),
        ("ProxyJump %r@bastion:2200\nUser admin\n", "admin@bastion:2200", None),
    ],
)
def test_the_first_of_two_ways_counts(
    configure: Configure, text: str, jump: str | None, command: str | None
) -> None:
    login = configure(text)
    assert (login.jump, login.proxy_command) == (jump, command)


CHAIN = "Host relay-one\n  ProxyJump b\nHost b\n  ProxyJump a\nHost c\n  ProxyJump d\nHost d\n  ProxyJump c\n"


def test_jump_hosts_of_jump_hosts_are_passed_and_pinned(configure: Configure) -> None:
    assert [hop.key_name for hop in configure(CHAIN).hops()] == ["a", "b"]
    assert [hop.key_name for hop in configure(CHAIN, jump="b,e").hops()] == ["a", "b", "e"]
    assert [hop.key_name for hop in configure("ProxyJump relay-one\n").hops()] == []


def test_jump_hosts_that_lead_to_each_other_are_refused(configure: Configure) -> None:
    with pytest.raises(SshConfigWrong) as error:
        configure(CHAIN, jump="c").hops()
    assert "lead to each other" in error.value.why


def test_a_configured_chain_of_jump_hosts_gets_in(
    configure: Configure, new_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    """The inner server listens in the outer one's network, and is its own second jump host."""
    outer = new_sshd()
    inner = subprocess.Popen(
        [*outer.enter, "/usr/sbin/sshd", "-D", "-f", "/run/stage/sshd_config", "-p", "2200"]
    )
    text = "Host relay-one\n  ProxyJump two\nHost two\n  ProxyJump one\n"
    text += "Host two relay-one\n  HostName 127.0.0.1\n  Port 2200\n"
    text += by_key(outer).replace("relay-one", "one") + f"Host *\n  IdentityFile {outer.key}\n  User root\n"
    pins = tmp_path / "pins"
    pins.write_text(f"[127.0.0.1]:{outer.port},[127.0.0.1]:2200 {outer.host_key}\n")
    try:
        while inner.poll() is None and ":2200" not in outer.run("ss", "-Hltn").stdout:
            time.sleep(0.05)
        login = configure(text, known_hosts=pins)
        assert [hop.port for hop in login.hops()] == [outer.port, 2200]
        assert run_once(login, ["echo", "there"]) == (0, "there\n")
    finally:
        outer.stop()
        inner.wait(10)


def test_a_key_of_the_configuration_may_be_missing(configure: Configure, sshd: Sshd) -> None:
    text = "Host *\n  IdentityFile ~/.ssh/id_nobody_has\n  IdentityFile none\n" + by_key(sshd)
    login = configure(text, known_hosts=sshd.known_hosts)
    assert run_once(login, ["echo", "there"]) == (0, "there\n")


@pytest.fixture
def agent(tmp_path: Path) -> Any:
    """Return the socket of an ssh-agent with six keys that no stage knows; stop it afterwards."""
    place = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL) as process:
        while not place.exists():
            assert process.poll() is None
        for number in range(6):
            make_key(tmp_path / f"stranger{number}")
            add(place, tmp_path / f"stranger{number}")
        yield place
        process.terminate()


def add(place: Path, key: Path) -> None:
    subprocess.run(
        ["ssh-add", "-q", str(key)], env={**os.environ, "SSH_AUTH_SOCK": str(place)}, check=True
    )


def test_only_the_named_key_of_an_agent_is_offered(
    configure: Configure, sshd: Sshd, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six strangers before it are more than a server bears (MaxAuthTries)."""
    add(agent, sshd.key)
    public = tmp_path / "only.pub"
    public.write_text(sshd.key.with_suffix(".pub").read_text())
    text = by_key(sshd, "  IdentitiesOnly yes\n").replace(str(sshd.key), str(public))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    login = configure(text, known_hosts=sshd.known_hosts)
    assert run_once(login, ["echo", "there"]) == (0, "there\n")
    all_keys = configure(text.replace("IdentitiesOnly yes", ""), known_hosts=sshd.known_hosts)
    with pytest.raises(Unreachable):
        run_once(all_keys, ["true"])


@pytest.mark.parametrize("written", ["{agent}", "$OUR_AGENT", "${{OUR_AGENT}}"])
def test_the_configured_agent_is_asked(
    configure: Configure,
    sshd: Sshd,
    agent: Path,
    tmp_path: Path,
    written: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(agent, sshd.key)
    monkeypatch.setenv("OUR_AGENT", str(agent))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nobody"))
    public = tmp_path / "only.pub"
    public.write_text(sshd.key.with_suffix(".pub").read_text())
    text = by_key(sshd, "  IdentitiesOnly yes\n").replace(str(sshd.key), str(public))
    text += f"  IdentityAgent {written.format(agent=agent)}\n"
    login = configure(text, known_hosts=sshd.known_hosts)
    assert run_once(login, ["echo", "there"]) == (0, "there\n")
    none = configure(text.replace("IdentityAgent ", "IdentityAgent none\n#"), known_hosts=sshd.known_hosts)
    with pytest.raises(Unreachable):
        run_once(none, ["true"])


def test_the_kind_of_addresses_is_followed(configure: Configure, sshd: Sshd) -> None:
    text = by_key(sshd).replace("127.0.0.1", "localhost")
    with configure(f"AddressFamily inet\n{text}").dial() as line:
        assert line.getpeername() == ("127.0.0.1", sshd.port)
    with pytest.raises(OSError, match=r"refused|Cannot assign|not supported|No address|not known"):
        configure(f"AddressFamily inet6\n{text}").dial()


def test_the_own_address_is_followed(configure: Configure, sshd: Sshd) -> None:
    with configure(by_key(sshd, "  BindAddress 127.0.0.9\n")).dial() as line:
        assert line.getsockname()[0] == "127.0.0.9"


def test_lists_of_algorithms_are_followed(configure: Configure, sshd: Sshd) -> None:
    def offered(more: str) -> str:
        return offered_host_key(configure(by_key(sshd, more))).get_name()

    assert offered("  HostKeyAlgorithms ssh-ed25519,rsa-sha2-512\n") == "ssh-ed25519"
    assert offered("  HostKeyAlgorithms ^ecdsa-sha2-nistp256\n  Ciphers aes256-ctr\n") == "ssh-ed25519"
    with pytest.raises(Unreachable):  # the stage has no other key
        offered("  HostKeyAlgorithms -ssh-ed25519\n")
    with pytest.raises(SshConfigWrong) as error:
        offered("  Ciphers chacha20-poly1305@openssh.com\n")
    assert "no algorithm is left by `chacha20-poly1305@openssh.com`" in error.value.why


def test_a_list_leaves_out_what_ssh_leaves_out() -> None:
    known = ["aes128-ctr", "aes256-ctr", "aes256-gcm@openssh.com"]
    assert dropped(known, "aes256-ctr,3des-cbc") == [known[0], known[2]]
    assert dropped(known, "-aes*-ctr") == known[:2]
    assert dropped(known, "+3des-cbc") == dropped(known, "^aes256-ctr") == []
    for words in ("arcfour", "-*"):
        with pytest.raises(NotSupported):
            dropped(known, words)
    assert set(dropped(Transport._preferred_kex, "curve25519-sha256")) < set(Transport._preferred_kex)


def test_what_does_not_count_is_named_where_it_is_missed(
    configure: Configure, sshd: Sshd, tmp_path: Path
) -> None:
    more = "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
    with pytest.raises(Unreachable) as error:
        run_once(configure(by_key(sshd, more), known_hosts=tmp_path / "none"), ["true"])
    assert "does not count here: StrictHostKeyChecking, UserKnownHostsFile" in error.value.why
    more = "  GSSAPIAuthentication yes\n  User nobody-here\n"
    text = by_key(sshd, more).replace("User root", "")
    with pytest.raises(Unreachable) as error:
        run_once(configure(text, known_hosts=sshd.known_hosts), ["true"])
    assert "not followed here: GSSAPIAuthentication" in error.value.why


def test_the_systems_file_counts_after_the_own_one(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    (folder / "ssh_config.d").mkdir(parents=True)
    monkeypatch.setattr("engine.ssh_config.SYSTEM", folder)
    system = "Include ssh_config.d/*.conf\nHost *\n    SendEnv LANG LC_*\n    HashKnownHosts yes\n"
    (folder / "ssh_config").write_text(system)
    assert configure("User me\n").port == 22
    (folder / "ssh_config.d" / "ours.conf").write_text("User you\nPort 2200\n")
    login = configure("Host relay-one\n  User me\n")
    assert (login.user, login.port) == ("me", 2200)


# ssh itself says what it makes of a file.

LINES = st.sampled_from(
    [
        *("Host relay-one", "Host *", "Host relay-* !relay-one", "Host !other relay-?ne", "Host other"),
        *("Match all", "Match host relay-one", "Match host 192.0.2.9", "Match originalhost relay-*"),
        *("Match user admin", "Match !user admin", "Match final", "Match host relay-one user root"),
        *("HostName 192.0.2.9", "HostName %h.example.org", "Port 2200", "Port=2201", "User admin"),
        *("User root", "  user = me", "HostKeyAlias one", "AddressFamily inet", "BindAddress 127.0.0.1"),
        *("ProxyJump a,b", "ProxyJump none", "ProxyCommand nc %h %p", "ProxyCommand none"),
        *("IdentitiesOnly yes", "# a comment", "", "IdentityAgent none", "Port 2202 # far", 'User "you"'),
        *("User 'them' # x", "Host [a-z]elay-one", 'Host "relay-one" # one', "# h\udcf6st"),
        *('IdentityFile "/tmp/a key"', "IdentityFile /tmp/b # old", "ProxyCommand nc '%h' %p # all of it"),
    ]
)
ASKED = ("hostname", "port", "user", "hostkeyalias", "addressfamily", "bindaddress", "identitiesonly")


def of_ssh(path: Path, user: str, port: int) -> dict[str, str]:
    options = [*(["-l", user] if user else []), *(["-p", str(port)] if port else [])]
    argv = ["ssh", "-G", "-F", str(path), *options, "relay-one"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        found.setdefault(*line.split(" ", 1))
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(lines=["ProxyCommand nc %h %p", "ProxyCommand none"], user="", port=0)
@example(lines=["ProxyCommand none", "ProxyJump a,b"], user="", port=0)
@given(lines=st.lists(LINES, max_size=12), user=st.sampled_from(["", "admin"]), port=st.sampled_from([0, 7]))
def test_files_mean_what_ssh_says(tmp_path: Path, lines: list[str], user: str, port: int) -> None:
    path = tmp_path / "config"
    path.write_text("\n".join(lines) + "\n", errors="surrogateescape")
    theirs, ours = of_ssh(path, user, port), read([path], "relay-one", {"User": user, "Port": port})
    defaults = {"port": "22", "user": theirs["user"] if "user" not in ours else "", "addressfamily": "any"}
    for name in ASKED:
        value = str(ours.get(name, defaults.get(name, theirs.get(name, ""))))
        if name in ours or name in theirs:
            assert value == theirs.get(name, value), (name, lines)
    assert ours.get("identityfile", [theirs["identityfile"]])[0] == theirs["identityfile"]
    jump, command = _ways(ours)
    assert jump.lower() == theirs.get("proxyjump", "none")
    assert (command is None) == ("proxycommand" not in theirs)
