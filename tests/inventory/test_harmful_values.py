"""Values of a site file that would harm: commands, options, words in the clear, wrong addresses."""
# ruff: noqa: E501 - a value and its message are on one line

import pytest

import inventory
from inventory.model import Site
from inventory.site_file import compile_site
from tests.support.site_text import FILE, GOOD, compiled, host, problems

CLEAR = "so anyone between"


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ("relay: {verify_client_url: 'http://hs.example.org/verify'}", True),
        ("relay: {verify_client_url: 'http://10.0.0.1/verify'}", True),
        ("relay: {verify_client_url: 'http://127.evil.example.org/verify'}", True),
        ("relay: {verify_client_url: 'http://127.0.0.1:8080/verify'}", False),
        ("relay: {verify_client_url: 'http://[::1]:8080/verify'}", False),
        ("relay: {verify_client_url: 'http://hs.example.org/verify', verify_insecure: true}", False),
        ("relay: {verify_client_url: 'https://hs.example.org/verify'}", False),
    ],
)
def test_who_may_use_the_relay_is_not_asked_in_the_clear(lines, refused):
    found = compile_site(host(lines), FILE)
    assert isinstance(found, Site) is not refused
    assert not refused or CLEAR in str(found[0])


def test_headscale_is_not_asked_in_the_clear_unless_it_is_said_twice():
    headscale = "headscale: {url: 'http://hs.example.org'}\n"
    assert CLEAR in problems(GOOD + headscale)[0]
    assert compiled(host("relay: {verify_insecure: true}") + headscale).headscale
    assert compiled(host("relay: {open: true}") + headscale).headscale


@pytest.mark.parametrize(
    "lines",
    [
        "relay: {verify_client_url: 'https://u:s3cret@hs.example.org/verify'}",
        "docker: {mirror: 'https://u:s3cret@hs.example.org/'}",
        "certificate: {server: 'https://u@hs.example.org/'}",
    ],
)
def test_a_url_holds_no_login(lines):
    (found,) = [text for text in problems(host(lines).replace("    certificate: {agree_terms: true}\n", "")) if "URL has no user" in text]
    assert "s3cret" not in found


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o644, False), (0o664, True), (0o646, True)])
def test_a_command_runs_only_from_a_file_that_nobody_else_may_write(mode, refused, tmp_path):
    file = tmp_path / "site.yml"
    file.write_text(host("ssh: {password: 'cmd:pass hk1'}"))
    file.chmod(mode)
    if not refused:
        assert inventory.load(file).hosts["hk1"].ssh.password == "cmd:pass hk1"
        return
    with pytest.raises(inventory.SiteError) as error:
        inventory.load(file)
    (problem,) = error.value.problems
    assert problem.path == "hosts.hk1.ssh.password"
    assert problem.message.startswith("runs a command, but the site file may be written by others: ")
    file.write_text(host("ssh: {password: 'env:HK1'}"))
    assert inventory.load(file).hosts["hk1"].ssh.password == "env:HK1"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        *(
            (f"{key}: '{address}'", f"hosts.hk1.{key}: {address} is no public address, and clients are sent there")
            for key, addresses in {
                "ipv4": ("127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.2", "100.64.0.5"),
                "ipv6": ("::1", "fd00::1"),
            }.items()
            for address in addresses
        ),
        ("ipv4: 224.0.0.1", "hosts.hk1.ipv4: 224.0.0.1 is not the internet address of one host"),
        ("ipv4: 0.0.0.0", "hosts.hk1.ipv4: 0.0.0.0 is not the internet address of one host"),
        ("ipv4: 169.254.1.1", "hosts.hk1.ipv4: 169.254.1.1 is not the internet address of one host"),
        ("ipv6: 'ff02::1'", "hosts.hk1.ipv6: ff02::1 is not the internet address of one host"),
        ("ipv6: 'fe80::1'", "hosts.hk1.ipv6: fe80::1 is not the internet address of one host"),
        ("ports: {https: 22}", "hosts.hk1.ports.https: 22 is the port of ssh on this host"),
        ("docker: {image: '--privileged@sha256:" + "a" * 64 + "'}", "is not an image with its digest"),
        ('ssh: {user: "root\\nx"}', "is not the name of a user"),
        ("ssh: {user: -oProxyCommand=x}", "is not the name of a user"),
        *(
            (f"{key}: '{address}'", f"hosts.hk1.{key}: {address} is not the internet address of one host")
            for key, addresses in {
                "ipv4": ("255.255.255.255", "240.0.0.1", "192.0.0.1", "198.18.0.1"),
                "ipv6": ("::ffff:c633:6401", "::c633:6401", "64:ff9b::c633:6401", "100::1", "2001:db8::1%eth0"),
            }.items()
            for address in addresses
        ),
        *((f"ports: {{{name}: 22}}", f"hosts.hk1.ports.{name}: 22 is the port of ssh") for name in ("backend", "metrics")),
        ("ssh: {port: 81}", "hosts.hk1.ports.backend: 81 is the port of ssh"),
        # A ProxyCommand with %h or %r, and Match exec, would run them.
        *((f"ssh: {{address: '{text}'}}", "is not a name or an address") for text in ("a;id", "`id`", "$(id)", "-oX=y", "a|b")),
        *((f"ssh: {{user: '{text}'}}", "is not the name of a user") for text in ("a;id", "`id`", "$(id)", "a&b")),
        *((f"ssh: {{jump: '{text}'}}", "is not jump hosts") for text in ("$(id)", "a,-oX=y", "a;id", "`id`@b")),
        ("ssh: {jump: 'a@-oX=y'}", "hosts.hk1.ssh.jump: "),
        *((f'ssh: {{python: "{text}"}}', "is not the name or path of a program") for text in ("", "-c", "a b", "a\\nb")),
        *(
            (f'relay: {{admission: tailscaled, tailscaled: {{socket: "{text}"}}}}', "is not a path below /run")
            for text in ("/run/x\\nExecStartPre=/bin/x", "/run/a b", "/run/../etc/x", "/run/")
        ),
        ('relay: {verify_client_url: "https://x.example/\\e[2J"}', "is not a URL"),
    ],
)
def test_values_that_cannot_be_meant(lines, said):
    assert any(said in found for found in problems(host(lines))), problems(host(lines))


@pytest.mark.parametrize("contact", ["-x@example.org", "a\\eb@example.org", "a@b\\0"])
def test_a_mail_address_is_no_option_and_has_no_control(contact):
    (found,) = problems(GOOD.replace("{agree_terms: true}", f'{{agree_terms: true, contact: "{contact}"}}'))
    assert "is not a mail address" in found


def test_a_unit_is_no_option():
    assert "is not a systemd unit" in problems(GOOD + "headscale: {url: 'https://hs', unit: --now.service}\n")[0]
