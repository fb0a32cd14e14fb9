"""`python -m relay.selftest` against real relays."""

import pytest

from bench.relay import servers
from relay import selftest
from relay.keys.node_key import NodeKey, render_key_file
from relay.keys.self_signed import pin_of
from tests.relay import live


def run(*argv):
    selftest.main([*argv, "-timeout", "5", "-count", "3"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with live.relay(tmp_path_factory.mktemp("plain"), tls=False) as relay:
        yield relay


def url(relay):
    return f"http://{relay.running.address}"


def test_a_relay_that_relays(plain, capsys):
    run(url(plain), "-stun-port", str(plain.running.stun_port))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", step] for step in ("login", "login", "ping", "packets", "stun")
    ]
    assert "3 each way of 1200 bytes" in lines[3] and "we are 127.0.0.1" in lines[4]


def test_the_largest_packets(plain, capsys):
    run(url(plain), "-size", "65536", "-stun-port", "0")
    assert "of 65536 bytes" in capsys.readouterr().out


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    with live.relay(tmp_path_factory.mktemp("tls")) as relay:
        yield relay


def tls_flags(relay):
    return [f"https://{servers.HOST}:{relay.running.port}", "-address", "127.0.0.1", "-stun-port", "0"]


@pytest.mark.parametrize("fast", [[], ["-fast-start"]])
def test_tls_by_pin_by_authority_or_unchecked(encrypted, capsys, monkeypatch, fast):
    chain = encrypted.running.ca.parent / f"{servers.HOST}.crt"
    run(*tls_flags(encrypted), "-pin", pin_of(chain.read_text()), *fast)
    run(*tls_flags(encrypted), "-insecure", *fast)
    monkeypatch.setenv("SSL_CERT_FILE", str(encrypted.running.ca))
    run(*tls_flags(encrypted), *fast)
    out = capsys.readouterr().out
    assert (
        out.count("ok  tls      TLSv1.3 TLS_AES_")
        == out.count(pin_of(chain.read_text()))
        == out.count("ok  packets")
        == 3
    )


@pytest.mark.parametrize(
    "flags, says",
    [
        (["-pin", "sha256-raw:00"], "tls: the certificate's pin is sha256-raw:"),
        ([], "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_another_certificate_is_not_trusted(encrypted, capsys, flags, says):
    with pytest.raises(SystemExit) as e:
        run(*tls_flags(encrypted), *flags)
    assert e.value.code == 1 and says in capsys.readouterr().err


def test_a_closed_relay(tmp_path, capsys):
    friend = NodeKey.generate()
    (tmp_path / "allow").write_text(friend.public.hex())
    (tmp_path / "friend.key").write_bytes(render_key_file(friend))
    (tmp_path / "mesh.key").write_text("ab" * 32)
    flags = ["-allow-file", str(tmp_path / "allow"), "-mesh-psk-file", str(tmp_path / "mesh.key")]
    with live.relay(tmp_path, *flags, tls=False) as relay:
        with pytest.raises(SystemExit):
            run(url(relay))
        assert "FAILED  login: the relay hung up. If it admits clients by list" in capsys.readouterr().err
        run(url(relay), "-key", str(tmp_path / "friend.key"), "-stun-port", "0")
        run(url(relay), "-mesh-key", str(tmp_path / "mesh.key"), "-stun-port", "0")
        assert relay.counted({}, r'relay_admissions\{reason="not_in_allow_file"\}') == 1


@pytest.mark.parametrize(
    "argv, code, says",
    [
        (["http://127.0.0.1:1"], 1, "FAILED  login: "),
        (["ftp://x"], 2, "is no http:// or https:// URL"),
        (["http://x", "-size", "7"], 2, "-size is 8 to 65536"),
        (["http://x", "-key", "/nowhere"], 1, "FAILED  key: "),
    ],
)
def test_a_step_that_fails_is_reported(argv, code, says, capsys):
    with pytest.raises(SystemExit) as e:
        run(*argv)
    assert e.value.code == code and says in capsys.readouterr().err


def test_a_server_that_is_no_relay(tmp_path, capsys, plain):
    with pytest.raises(SystemExit):
        run(url(plain), "-stun-port", str(plain.running.port), "-timeout", "1")
    assert "FAILED  stun: " in capsys.readouterr().err
    with live.relay(tmp_path, "-derp=false", tls=False) as relay, pytest.raises(SystemExit):
        run(url(relay))
    assert "the upgrade was refused: HTTP 404: derp server disabled" in capsys.readouterr().err
