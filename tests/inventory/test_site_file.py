"""A site file: the values that are accepted, and texts that are no site file at all."""
# ruff: noqa: E501 - a rule and its message are on one line

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inventory
from inventory.model import Region, Site
from inventory.site_file import compile_site
from tests.support.site_text import FILE, GOOD, SECOND, compiled, host, problems


def test_a_host_has_the_defaults_of_the_model():
    hk1 = compiled(GOOD).hosts["hk1"]
    assert (hk1.name, hk1.domain, hk1.region) == ("hk1", "hk1.example.org", Region(id=900, code="hk", name="Hong Kong"))
    assert (hk1.flavour, hk1.front, hk1.ports.https, hk1.ports.stun) == ("python", "nginx", 443, 3478)


def test_defaults_fill_what_a_host_does_not_set_section_by_section():
    site = compiled("""\
        defaults:
          ssh: {user: admin, port: 2200, jump: bastion}
          ports: {https: 3489}
          certificate: {agree_terms: true, contact: a@example.org}
          firewall: {allow: [51820/udp]}
        hosts:
          hk1:
            domain: hk1.example.org
            ipv4: 203.0.113.10
            region: {id: 900, code: hk, name: Hong Kong}
            ssh: {port: 22, jump:}
            certificate:
          sg1:
            domain: sg1.example.org
            region: {id: 901, code: sg, name: Singapore}
            firewall: {allow: []}
            ports: {stun: 443}
        """)
    hk1, sg1 = site.hosts["hk1"], site.hosts["sg1"]
    assert (hk1.ssh.user, hk1.ssh.port, hk1.ssh.jump) == ("admin", 22, None)  # a key without a value undoes a default
    assert hk1.certificate.contact == "a@example.org"  # a section without keys does not
    assert (hk1.firewall.allow, sg1.firewall.allow) == (("51820/udp",), ())
    assert (hk1.ports.https, sg1.ports.https, sg1.ports.stun) == (3489, 3489, 443)


@pytest.mark.parametrize(
    ("lines", "relay"),
    [
        ("flavour: docker", ("derper", "docker")),
        ("relay: {program: derper, under: docker}", ("derper", "docker")),
        ("flavour: docker\nrelay: {program: derper}", ("derper", "docker")),
        ("flavour: docker\nrelay: {under: docker}", ("derper", "docker")),
        ("flavour: python\nrelay: {program: python, under: systemd}", ("python", "systemd")),
        ("relay: {program: python}", ("python", "systemd")),
        ("relay: {program: , under: }", ("python", "systemd")),
    ],
)
def test_the_short_and_the_long_form_of_a_relay(lines, relay):
    hk1 = compiled(host(f"docker: {{archive: a.tar}}\n{lines}")).hosts["hk1"]
    assert (hk1.program, hk1.runner) == relay


def test_a_host_undoes_the_default_flavour_to_use_the_long_form():
    default = "defaults: {flavour: docker, docker: {archive: a.tar}}\n"
    long_form = "relay: {program: python, under: systemd}"
    hk1 = compiled(default + host(f"flavour:\n{long_form}")).hosts["hk1"]
    assert (hk1.program, hk1.runner) == ("python", "systemd")
    assert problems(default + host(long_form)) == [
        "line 7: hosts.hk1.relay.program: 'python' contradicts flavour: docker, which is short for program "
        "derper under docker: keep either flavour, or relay.program with relay.under"
    ]


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ("ipv4: 203.0.113.10", "203.0.113.10"),
        ("ipv6: 2001:db8::1", "hk1.example.org"),
        ("ssh: {user: root}", "hk1.example.org"),
        ("ipv4: 203.0.113.10\nssh: {address: 10.0.0.1}", "10.0.0.1"),
    ],
)
def test_the_address_for_ssh(lines, address):
    assert compiled(host(lines)).hosts["hk1"].ssh.address == address


def test_the_headscale_host_is_reached_by_its_url_and_the_default_login():
    site = compiled("defaults: {ssh: {user: admin}}\n" + GOOD + "headscale: {url: 'https://hs.example.org:8443'}\n")
    assert site.headscale is not None
    assert (site.headscale.ssh.address, site.headscale.ssh.user) == ("hs.example.org", "admin")


def test_paths_are_relative_to_the_site_file():
    site = compiled(
        host("ssh: {key: keys/id}\ndocker: {archive: /images/derper.tar}\n").replace(
            "agree_terms: true", "source: acme, server: 'https://ca/dir', ca: ca.pem"
        )
    )
    hk1 = site.hosts["hk1"]
    assert (hk1.ssh.key, hk1.docker.archive, hk1.certificate.ca) == ("/site/of/keys/id", "/images/derper.tar", "/site/of/ca.pem")
    assert (site.known_hosts, site.path) == ("/site/of/known_hosts", str(FILE))
    assert compiled("known_hosts: ~/pins\n" + GOOD).known_hosts == str(Path("~/pins").expanduser())


@pytest.mark.parametrize("jump", ["bastion", "you@bastion.example.org:22", "a@192.0.2.1,b@[2001:db8::1]:2200", "none"])
def test_jump_hosts(jump):
    assert compiled(host(f"ssh: {{jump: '{jump}'}}")).hosts["hk1"].ssh.jump == jump


def test_anchors_and_merge_keys():
    site = compiled("""\
        defaults: {certificate: {agree_terms: true}}
        hosts:
          hk1: &hk1
            <<: {flavour: python, <<: {ports: {https: 3489}}}
            domain: hk1.example.org
            region: &region {id: 900, code: hk, name: Hong Kong}
          hk2:
            <<: *hk1
            domain: hk2.example.org
            region:
              <<: *region
              id: 901
              code: hk2
        """)
    assert site.hosts["hk2"].region == Region(id=901, code="hk2", name="Hong Kong")
    assert site.hosts["hk2"].ports.https == 3489


def test_addresses_are_addresses():
    hk1 = compiled(host("ipv4: 203.0.113.10\nipv6: '2001:db8::1'")).hosts["hk1"]
    assert (hk1.ipv4, hk1.ipv6) == (IPv4Address("203.0.113.10"), IPv6Address("2001:db8::1"))


def test_words_of_old_yaml_are_text():
    assert compiled(GOOD.replace("code: hk", "code: no")).hosts["hk1"].region.code == "no"
    assert compiled(GOOD.replace("Hong Kong", "2024-01-01")).hosts["hk1"].region.name == "2024-01-01"


def test_load_reads_a_file(tmp_path):
    file = tmp_path / "site.yml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    site = inventory.load(file)
    assert site.path == str(file)
    assert site.known_hosts == str(tmp_path / "known_hosts")


def test_the_error_has_every_problem_in_the_order_of_their_lines(tmp_path):
    file = tmp_path / "site.yml"
    file.write_text(host("ports: {https: 0}\nflavour: x"))
    with pytest.raises(inventory.SiteError) as caught:
        inventory.load(file)
    error = caught.value
    assert (error.exit_code, error.what, error.where) == (4, "the site file has 2 problems; no host was contacted", str(file))
    assert error.problems == (
        inventory.Problem("hosts.hk1.ports.https", 6, "0 is not between 1 and 65535"),
        inventory.Problem("hosts.hk1.flavour", 7, "'x' is none of python, docker, native, supervisord"),
    )
    assert (
        error.why == "line 6: hosts.hk1.ports.https: 0 is not between 1 and 65535\nline 7: hosts.hk1.flavour: 'x' is none of python, docker, native, supervisord"
    )


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(inventory.SiteError) as caught:
        inventory.load(tmp_path / "none.yml")
    assert (caught.value.why, caught.value.next) == ("there is no such file", f"invoke init --path {tmp_path / 'none.yml'}")
    with pytest.raises(inventory.SiteError, match="a problem"):
        inventory.load(tmp_path)
    (tmp_path / "latin.yml").write_bytes(b"a: 1\nb: \xe4\n")
    with pytest.raises(inventory.SiteError) as caught:
        inventory.load(tmp_path / "latin.yml")
    assert caught.value.why == "line 2: is not UTF-8 text"


def test_aliases_of_aliases_do_not_grow_without_bound():
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8))
    assert "there are more than 100000 values" in problems(text)[0]


@settings(max_examples=200)
@given(st.data())
def test_no_text_at_all_does_anything_but_name_problems(data):
    text = host("ports: {https: 3489}\nssh: &ssh {key: ~/id}\nipv4: 203.0.113.1") + SECOND + "headscale: {url: https://hs}\n"
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 9)) :]
    found = compile_site(text, FILE)
    assert isinstance(found, Site) or (found and all(problem.message for problem in found))


def test_deep_nesting_is_refused():
    assert problems("[" * 5000) == ["values are nested too deeply"]


def test_merges_of_merges_are_counted():
    """Sixteen levels of `<<` are 600 bytes, and 40 million pairs."""
    levels = "\n".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}" for n in range(1, 17))
    assert problems(f"a0: &a0 {{x: 1}}\n{levels}\n") == ["line 3: << brings in more than 100000 values"]
