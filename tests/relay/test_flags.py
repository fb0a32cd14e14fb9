import shlex
from dataclasses import FrozenInstanceError, fields

import pytest

from relay import __version__, config, flags
from relay.config import Config
from relay.flags import FlagError, HelpWanted, parse, parse_or_exit

BASE = ["-c=k", "-certmode=manual"]


def test_defaults_are_derpers():
    c = parse(BASE)
    assert (c.addr, c.http_port, c.stun_port, c.stun, c.derp) == (":443", 80, 3478, True, True)
    assert (c.tcp_keepalive_time_s, c.tcp_user_timeout_s, c.tcp_write_timeout_s) == (600, 15, 2)
    assert (c.hostname, c.home, c.dev, c.verify_clients, c.verify_client_url) == (
        "derp.tailscale.com",
        "",
        False,
        False,
        "",
    )
    assert (c.accept_connection_limit, c.accept_connection_burst) == (float("inf"), 2**63 - 1)
    assert c.mesh_with == c.bootstrap_dns_names == c.disallow_app_names == ()


def test_the_url_check_fails_closed_unless_asked():
    url = "-verify-client-url=https://hs.example/verify"
    assert not parse([*BASE, url]).verify_client_url_fail_open
    assert parse([*BASE, url, "-verify-client-url-fail-open"]).verify_client_url_fail_open
    assert not parse([*BASE, url, "--verify-client-url-fail-open=false"]).verify_client_url_fail_open


def test_every_derper_flag_is_known():
    """Those of derper 1.104.5, each with a value that it accepts."""
    argv = shlex.split("""
    -dev -version=false -a=:8443 -http-port=-1 -stun-port=3479 -c=k -certmode=manual -certdir=/d
    -hostname=h -acme-eab-kid=a -acme-eab-key=a -acme-email=a -acme-ip-certs=false -stun=false
    -derp=false -home=blank
    -mesh-psk-file=m -mesh-with=a,b/c -secrets-url= -secrets-path-prefix=p -secrets-cache-dir=d
    -bootstrap-dns-names=a,b -unpublished-bootstrap-dns-names=c
    -verify-clients -verify-client-url=http://x/ -verify-client-url-fail-open=true
    -disallow-app-names=x,y -socket=s -accept-connection-limit=10.5 -accept-connection-burst=20 -rate-config=r
    -tcp-keepalive-time=1m -tcp-user-timeout=10s -tcp-write-timeout=0 -ace=false""")
    c = parse(argv)
    assert c.mesh_with == ("a", "b/c") and c.disallow_app_names == ("x", "y")
    assert c.accept_connection_limit == 10.5 and c.tcp_write_timeout_s == 0
    assert c.listen == ("", 3340), "-dev overrides -a"


@pytest.mark.parametrize(
    "addr, mode, listen, tls",
    [
        (":443", "manual", ("", 443), True),
        (":https", "manual", ("", 443), True),
        ("127.0.0.1:8443", "manual", ("127.0.0.1", 8443), True),
        ("[::1]:81", "letsencrypt", ("::1", 81), False),
        (":http", "gcp", ("", 80), False),
    ],
)
def test_tls_is_decided_as_derper_decides_it(addr, mode, listen, tls):
    c = parse(["-c=k", f"-a={addr}", f"-certmode={mode}"])
    assert (c.listen, c.serve_tls) == (listen, tls)


@pytest.mark.parametrize(
    "argv, says",
    [
        (["-c=k"], "-certmode letsencrypt: this relay asks no certificate authority itself"),
        (["-c=k", "-certmode=gcp"], "certbot"),
        (
            [*BASE, "-stun", "false"],
            'unexpected argument "false": flags only; a boolean is switched off with -flag=false',
        ),
        ([*BASE, "-a=443"], "invalid server address: address 443: missing port in address"),
        ([*BASE, "-a=:99999"], 'invalid server address: unknown port "99999"'),
        ([*BASE, "-a=:gopher"], 'unknown port "gopher"'),
        ([*BASE, "-secrets-url=https://setec"], "-secrets-url is derper's alone"),
        ([*BASE, "-acme-ip-certs"], "-acme-ip-certs is derper's alone"),
        ([*BASE, "-ace"], "-ace is derper's alone"),
        ([*BASE, "-home=welcome"], 'unknown --home value "welcome"'),
        ([*BASE, "-unpublished-bootstrap-dns-names=a,b/c"], "staged roll-out by a TXT record"),
        ([*BASE, "-mesh-psk-file=", "-mesh-with=a"], "--mesh-with requires --mesh-psk-file"),
        (["-dev", "-mesh-psk-file=", "-mesh-with=a"], "--mesh-with requires --mesh-psk-file"),
        ([*BASE, "-mesh-psk-file=k", "-mesh-with=a,a/b/c"], '-mesh-with "a/b/c": too many components'),
        ([*BASE, "-verify-client-url=headscale/verify"], "not an http:// or https:// URL"),
        ([*BASE, "-front-check=x"], "-front-check: address x: missing port in address"),
        ([*BASE, "-metrics-listen=9090"], "-metrics-listen: address 9090: missing port in address"),
        ([*BASE, "-metrics-listen=unix:x"], "-metrics-listen unix:x: the path has to begin with /"),
        ([*BASE, "-metrics-listen=:x"], '-metrics-listen: unknown port "x"'),
        ([*BASE, "-trusted-proxies=10.0.0.0/33"], "neither an address nor a CIDR"),
        ([*BASE, "-proxy-protocol"], "-proxy-protocol needs -trusted-proxies"),
        ([*BASE, "-log-format=xml"], "choose auto, plain, json or journal"),
        ([*BASE, "-drain=-1s"], "-drain must not be negative"),
        ([*BASE, "-workers=0"], "-workers must be at least 1 and at most 256"),
        ([*BASE, "-memory-ceiling=-1"], "-memory-ceiling must be at least 0"),
        ([*BASE, "-http-port=70000"], "-http-port must be at least -1 and at most 65535"),
        ([*BASE, "-accept-connection-limit=0"], "-accept-connection-limit must be more than 0"),
        ([*BASE, "-accept-connection-burst=0"], "-accept-connection-burst must be at least 1"),
        ([*BASE, "-accept-connection-limit=nan"], "-accept-connection-limit must be more than 0"),
    ],
)
def test_what_cannot_be_served_is_refused_with_words(argv, says):
    with pytest.raises(FlagError) as e:
        parse(argv)
    assert says in str(e.value)


def test_well_formed_extras_pass():
    c = parse(
        [
            *BASE,
            "-metrics-listen=127.0.0.1:9090",
            "-trusted-proxies=127.0.0.1, 10.0.0.0/8,::1",
            "-proxy-protocol",
            "-home=https://x",
        ]
    )
    assert c.trusted_proxies == ("127.0.0.1", "10.0.0.0/8", "::1") and c.proxy_protocol


def test_a_relay_in_development_has_its_mesh_key_from_the_environment(monkeypatch):
    monkeypatch.setenv(config.DEV_MESH_KEY, "0" * 64)
    assert parse(["-dev", "-mesh-psk-file=", "-mesh-with=a"]).mesh_with == ("a",)


def test_key_file_default():
    assert parse(["-certmode=manual"], root=True).key_file == "/var/lib/derper/derper.key"
    with pytest.raises(FlagError, match="-c <config path> not specified"):
        parse(["-certmode=manual"], root=False)
    assert parse(["-dev"], root=False).key_file == ""


def test_version_needs_nothing_else():
    assert parse(["-version", "-a=nonsense"]).version


def test_machine_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert config.default_cert_dir() == "/cache/tailscale/derper-certs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.default_cert_dir() == f"{tmp_path}/.cache/tailscale/derper-certs"
    assert config.default_mesh_psk_file() == ""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/derp-mesh.key").write_text("0" * 64)
    assert config.default_mesh_psk_file() == f"{tmp_path}/keys/derp-mesh.key"
    monkeypatch.delenv("HOME")
    assert config.default_cert_dir() == ""


def test_help_names_every_flag_with_default_and_fits_the_width():
    text = flags.usage(80)
    for f in fields(Config):
        assert f"  -{f.metadata['flag']}" in text
    assert '(default ":443")' in text and "(default 10m0s)" in text and "(default 80)" in text
    head = text.split("Examples:")[0]
    assert max(map(len, head.splitlines()[3:])) <= 80


def test_the_examples_in_the_help_are_accepted():
    text = flags.usage().split("Examples:")[1].replace("\\\n", " ")
    commands = [line.split()[3:] for line in text.splitlines() if "python -m relay" in line]
    assert len(commands) == 3
    for argv in commands:
        assert isinstance(parse(argv, root=True), Config)


def test_a_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        parse(BASE).addr = ":1"


def test_exit_codes(capsys):
    assert parse_or_exit(BASE) == parse(BASE)
    with pytest.raises(SystemExit) as e:
        parse_or_exit(["-nonsense"])
    assert e.value.code == 2
    assert (
        capsys.readouterr().err == "relay: flag provided but not defined: -nonsense\nUse -h for the flags.\n"
    )
    with pytest.raises(SystemExit) as e:
        parse_or_exit(["-h"])
    assert e.value.code == 0 and "Examples:" in capsys.readouterr().out
    with pytest.raises(SystemExit) as e:
        parse_or_exit(["-version"])
    assert e.value.code == 0 and capsys.readouterr().out == f"{__version__}\n"


def test_argv_is_the_programs_own_by_default(monkeypatch):
    monkeypatch.setattr("sys.argv", ["relay", "-dev"])
    assert parse_or_exit().dev
    with pytest.raises(HelpWanted):
        parse(["-h"])
