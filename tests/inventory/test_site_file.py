"""A site file: the values that are accepted, and every refusal in its exact words."""
# ruff: noqa: E501 - a rule and its message are on one line

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from textwrap import indent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inventory
from inventory.model import Region, Site
from inventory.site_file import compile_site

FILE = Path("/site/of/ours.yml")
GOOD = """\
hosts:
  hk1:
    domain: hk1.example.org
    region: {id: 900, code: hk, name: Hong Kong}
    certificate: {agree_terms: true}
"""


def compiled(text):
    site = compile_site(text, FILE)
    assert isinstance(site, Site), [str(problem) for problem in site]
    return site


def problems(text):
    found = compile_site(text, FILE)
    assert not isinstance(found, Site)
    return sorted(str(problem) for problem in found)


def host(lines):
    """Return GOOD with these lines in hk1; the first of them is line 6 of the file."""
    return GOOD + indent(lines, "    ") + "\n"


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


RULES = [
    # form
    ("region: {id: 900}", "line 6: hosts.hk1.region: this key is here twice, first on line 4"),
    ("flavor: docker", "line 6: hosts.hk1.flavor: unknown key; did you mean flavour?"),
    ("zzz: 1", "line 6: hosts.hk1.zzz: unknown key; known here: domain, region, ipv4, ipv6, ssh, ports, flavour, front, certificate, firewall, relay, docker"),
    ("name: other", "line 6: hosts.hk1.name: unknown key; the host's name is its key, hk1"),
    ("flavour: podman", "line 6: hosts.hk1.flavour: 'podman' is none of python, docker"),
    ("flavour: Docker", "line 6: hosts.hk1.flavour: 'Docker' is none of python, docker; did you mean docker?"),
    ("ports: {https: 0}", "line 6: hosts.hk1.ports.https: 0 is not between 1 and 65535"),
    ("ports: {https: '443'}", "line 6: hosts.hk1.ports.https: '443' is not a whole number"),
    ("ports: {https: 443.5}", "line 6: hosts.hk1.ports.https: 443.5 is not a whole number"),
    ("ports: {https: true}", "line 6: hosts.hk1.ports.https: true is not a whole number"),
    ("ports: 443", "line 6: hosts.hk1.ports: the value here is not a section: its keys are on their own lines, indented"),
    ("firewall:\n  allow: 443", "line 7: hosts.hk1.firewall.allow: 443 is not a list: each entry is on its own line, behind a hyphen"),
    ("firewall:\n  allow:\n  - 443", "line 8: hosts.hk1.firewall.allow.0: 443 is not text: put it in quotes"),
    ("firewall:\n  allow:\n  - 443/sctp", "line 8: hosts.hk1.firewall.allow.0: '443/sctp' is not a port, as 8443/tcp or 60000-61000/udp"),
    ("firewall:\n  allow:\n  - 300/ip", "line 8: hosts.hk1.firewall.allow.0: '300/ip' is no protocol of IP: these are 0 to 255"),
    ("firewall:\n  allow:\n  - 70000/tcp", "line 8: hosts.hk1.firewall.allow.0: '70000/tcp' is no range of ports within 1 to 65535"),
    ("firewall:\n  allow: [9-1/tcp]", "line 7: hosts.hk1.firewall.allow.0: '9-1/tcp' is no range of ports within 1 to 65535"),
    ("firewall: {revert_after_s: 5}", "line 6: hosts.hk1.firewall.revert_after_s: 5 is not between 10 and 600"),
    ("relay: {open: yes}", "line 6: hosts.hk1.relay.open: 'yes' is not true or false"),
    ("ipv4: 203.0.113", "line 6: hosts.hk1.ipv4: '203.0.113' is not an IPv4 address"),
    ("ipv6: 203.0.113.1", "line 6: hosts.hk1.ipv6: '203.0.113.1' is not an IPv6 address"),
    ("ssh: {address: 'root@hk1'}", "line 6: hosts.hk1.ssh.address: 'root@hk1' is not a name or an address, without user, port or path"),
    ("relay: {verify_client_url: hs.example.org}", "line 6: hosts.hk1.relay.verify_client_url: 'hs.example.org' is not a URL, as https://name/path"),
    *(
        (f"relay: {{verify_client_url: '{url}'}}", f"line 6: hosts.hk1.relay.verify_client_url: '{url}' is not a URL, as https://name/path")
        for url in ("http://[::1", "http://h:99999999/", "http://h:0/", "http://h:port/x", "http://:80/")
    ),
    *(
        (f"ssh: {{jump: '{jump}'}}", f"line 6: hosts.hk1.ssh.jump: '{jump}' is not jump hosts, as user@host:port with commas between")
        for jump in ("u@h:notaport", "u@h:70000", "a,b@h:0", "a,,b", "u@[::1", "two words", "u@", "ssh://h")
    ),
    # secrets are never shown
    ("ssh: {password: hunter2}", "line 6: hosts.hk1.ssh.password: the value here is not a reference: env:NAME, file:PATH or cmd:COMMAND"),
    ("ssh: {password: 12345}", "line 6: hosts.hk1.ssh.password: the value here is not text: put it in quotes"),
    # rules over one host
    ("ports: {https: 80}", "line 6: hosts.hk1.ports.http: 80 is the https port already"),
    ("ports: {backend: 443}", "line 6: hosts.hk1.ports.backend: 443 is the https port already"),
    ("ports: {metrics: 81}", "line 6: hosts.hk1.ports.backend: 81 is the metrics port already"),
    (
        "ports: {http: 8080}",
        "line 6: hosts.hk1.ports.http: Let's Encrypt asks on port 80, not on 8080. Where 80 is forwarded to it, "
        "use certificate.source: acme with Let's Encrypt's directory as server",
    ),
    (
        f"flavour: docker\nfront: none\nports: {{https: 3489}}\ndocker: {{image: 'derper@sha256:{'0' * 64}'}}",
        "line 8: hosts.hk1.ports.https: with its own letsencrypt, derper serves plain HTTP on any port but 443, so also on 3489: "
        "use front: nginx, port 443, or certificate.source: manual",
    ),
    ("flavour: docker", "line 2: hosts.hk1.docker: image or archive is missing: flavour docker needs one of them"),
    (
        "relay: {program: derper, under: docker}",
        "line 2: hosts.hk1.docker: image or archive is missing: relay.under docker needs one of them",
    ),
    (
        "relay: {program: derper, under: docker}\nfront: none\nports: {https: 3489}\n"
        f"docker: {{image: 'derper@sha256:{'0' * 64}'}}",
        "line 8: hosts.hk1.ports.https: with its own letsencrypt, derper serves plain HTTP on any port but 443, "
        "so also on 3489: use front: nginx, port 443, or certificate.source: manual",
    ),
    ("relay: {program: go}", "line 6: hosts.hk1.relay.program: 'go' is none of python, derper"),
    (
        "relay: {under: Systemd}",
        "line 6: hosts.hk1.relay.under: 'Systemd' is none of systemd, docker; did you mean systemd?",
    ),
    *(
        (
            f"relay: {words}",
            "line 6: hosts.hk1.relay.program: program derper does not run under systemd yet, as it is shipped "
            "only as an image for a container: set relay.under to docker, or relay.program to python",
        )
        for words in ("{program: derper}", "{program: derper, under: systemd}")
    ),
    *(
        (
            f"docker: {{archive: a.tar}}\nrelay: {words}",
            "line 7: hosts.hk1.relay.under: program python does not run under docker yet, as it is shipped only "
            "as a release for the host's own Python: set relay.under to systemd, or relay.program to derper",
        )
        for words in ("{under: docker}", "{program: python, under: docker}")
    ),
    (
        "flavour: docker\ndocker: {archive: a.tar}\nrelay: {program: python, under: systemd}",
        "line 8: hosts.hk1.relay.program: 'python' contradicts flavour: docker, which is short for program "
        "derper under docker: keep either flavour, or relay.program with relay.under",
    ),
    (
        "flavour: python\nrelay: {under: docker}\ndocker: {archive: a.tar}",
        "line 7: hosts.hk1.relay.under: 'docker' contradicts flavour: python, which is short for program "
        "python under systemd: keep either flavour, or relay.program with relay.under",
    ),
    ("docker: {image: 'derper:latest'}", "line 6: hosts.hk1.docker.image: 'derper:latest' is not an image with its digest, name@sha256:…: a tag can change under you"),
    (
        f"flavour: docker\ndocker: {{archive: a.tar, image: 'derper@sha256:{'0' * 64}'}}",
        "line 7: hosts.hk1.docker.archive: image and archive are both given: keep one of them",
    ),
    (
        "relay: {open: true, verify_client_url: 'https://hs/verify'}",
        "line 6: hosts.hk1.relay.open: the relay is either open or asks verify_client_url: keep one of them",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "message"), RULES, ids=[lines for lines, _ in RULES])
def test_refused_in_one_host(lines, message):
    assert problems(host(lines)) == [message]


REPLACED = [
    ("id: 900", "id: 9000", "line 4: hosts.hk1.region.id: 9000 is not between 900 and 999"),
    ("id: 900", "id: '900'", "line 4: hosts.hk1.region.id: '900' is not a whole number"),
    ("id: 900, ", "", "line 4: hosts.hk1.region.id: is missing"),
    ("code: hk", "code: HK 1", "line 4: hosts.hk1.region.code: 'HK 1' is not a region code: lower-case letters, digits and hyphens, 32 at most"),
    ("name: Hong Kong", 'name: "Hong\\nKong"', "line 4: hosts.hk1.region.name: 'Hong\nKong' is not one line of text"),
    ("name: Hong Kong", "name: ''", "line 4: hosts.hk1.region.name: is empty"),
    ("Hong Kong", "x" * 65, f"line 4: hosts.hk1.region.name: '{'x' * 56}…' is longer than 64 characters"),
    ("Hong Kong}", "Hong Kong, latitude: 91, longitude: 1}", "line 4: hosts.hk1.region.latitude: 91 is not between -90 and 90"),
    ("Hong Kong}", "Hong Kong, latitude: 91.0, longitude: 1}", "line 4: hosts.hk1.region.latitude: 91 is not between -90 and 90"),
    ("Hong Kong}", "Hong Kong, latitude: 22.3}", "line 4: hosts.hk1.region.longitude: is missing: latitude and longitude come together"),
    ("domain: hk1.example.org", "domain: 'https://hk1.example.org'",
     "line 3: hosts.hk1.domain: 'https://hk1.example.org' is not a host name: lower case, with a dot, without scheme, port or path; one with other letters as xn--…"),
    ("domain: hk1.example.org", "domain: hk1", "line 3: hosts.hk1.domain: 'hk1' is not a host name: lower case, with a dot, without scheme, port or path; one with other letters as xn--…"),
    ("domain: hk1.example.org", "domain: 203.0.113.300", "line 3: hosts.hk1.domain: '203.0.113.300' is neither a host name nor an IPv4 address"),
    ("domain: hk1.example.org", "domain: 203.0.113.10",
     "line 3: hosts.hk1.domain: '203.0.113.10' is an address, for which letsencrypt gives no certificate: use certificate.source: self-signed"),
    ("    domain: hk1.example.org\n", "", "line 2: hosts.hk1.domain: is missing (the relay's name; with a pinned certificate it may be an IPv4 address)"),
    ("agree_terms: true", "source: letsencrypt",
     "line 5: hosts.hk1.certificate.agree_terms: must be true: an account at Let's Encrypt needs your agreement to its terms"),
    ("agree_terms: true", "source: letsencrypt-staging",
     "line 5: hosts.hk1.certificate.agree_terms: must be true: an account at Let's Encrypt needs your agreement to its terms"),
    ("agree_terms: true", "source: acme", "line 5: hosts.hk1.certificate.server: is missing: source acme needs the ACME directory's URL"),
    ("agree_terms: true", "source: manual, key: 'file:k'", "line 5: hosts.hk1.certificate.fullchain: is missing: source manual needs fullchain and key"),
    ("agree_terms: true", "source: manual, fullchain: f", "line 5: hosts.hk1.certificate.key: is missing: source manual needs fullchain and key"),
    ("agree_terms: true", "source: self-signed, pin: AB", "line 5: hosts.hk1.certificate.pin: 'AB' is not 64 lower-case hex digits"),
    ("agree_terms: true", "agree_terms: true, contact: me", "line 5: hosts.hk1.certificate.contact: 'me' is not a mail address"),
    ("hk1:", "h k:", "line 2: hosts.h k: 'h k' is not a host's name: letters, digits, dots, underscores and hyphens"),
    ("hk1:", "Headscale:", "line 2: hosts.Headscale: 'Headscale' is no name for a relay: it is the headscale host's own"),
    ("hk1:", "prover.json:", "line 2: hosts.prover.json: 'prover.json' is no name for a relay: a file of that name is among the hosts' folders"),
    ("hk1.example.org", "CHANGE-ME",
     "line 3: hosts.hk1.domain: CHANGE-ME is only a placeholder: write your own (the relay's name; with a pinned certificate it may be an IPv4 address)"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), REPLACED, ids=[f"{new}" for _, new, _ in REPLACED])
def test_refused_instead(old, new, message):
    assert problems(GOOD.replace(old, new, 1)) == [message]


WHOLE = [
    ("", [" is empty"]),
    ("# nothing yet\n", [" is empty"]),
    ("- hk1\n", [" is not a mapping: a site file begins with `hosts:`"]),
    ("hosts:\n", ["line 1: hosts: is missing"]),
    ("hosts: {}\n", ["line 1: hosts: is empty"]),
    ("hosts: [hk1]\n", ["line 1: hosts: the value here is not a section: its keys are on their own lines, indented"]),
    ("hosts: {hk1: 7}\n", ["line 1: hosts.hk1: the value here is not a section: its keys are on their own lines, indented"]),
    ("hosts: {hk1: }\n", [
        "line 1: hosts.hk1.certificate.agree_terms: must be true: an account at Let's Encrypt needs your agreement to its terms",
        "line 1: hosts.hk1.domain: is missing (the relay's name; with a pinned certificate it may be an IPv4 address)",
        "line 1: hosts.hk1.region: is missing (a section with id, code, name)",
    ]),
    ("hosts:\n\thk1:\n", ["line 2: there is a tab where only spaces are allowed: indent YAML with spaces"]),
    ("hosts: {hk1: [}\n", ["line 1: while parsing a flow node: expected the node content, but found '}'"]),
    (
        "hosts:\n  hk1: a: b\n",
        ["line 2: a colon is not allowed here: check how the line above is indented, or put a value with ': ' in quotes"],
    ),
    ("a: 1\n---\nb: 2\n", ["line 2: a second document begins here (---); one file holds one"]),
    ("a: &x\n  b: *x\n", ["line 2: this alias leads back to itself"]),
    ("a: *x\n", ["line 1: found undefined alias 'x'"]),
    ("a: !!python/object:os.system x\n", ["line 1: the tag 'tag:yaml.org,2002:python/object:os.system' has no meaning here"]),
    ("a: \x07\n", ["line 1: the character U+0007 is not allowed in YAML"]),
    ("[a]: 1\n", ["line 1: a key is a word, not a list or a mapping"]),
    ("a: &x {b: {<<: *x}}\n", ["line 1: this alias leads back to itself"]),
    (f"a: {'9' * 101}\n", ["line 1: a number has more than 100 digits"]),
    ("<<: 1\n", ["line 1: << takes a mapping, or a list of mappings"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "messages"), WHOLE, ids=[text for text, _ in WHOLE])
def test_refused_as_a_whole(text, messages):
    assert problems(text) == [message.lstrip() for message in messages]


TOP = [
    ("defaults: 7\n", "line 6: defaults: the value here is not a section: its keys are on their own lines, indented"),
    ("defaults: {domain: x.example.org}\n", "line 6: defaults.domain: every host has its own: it belongs under hosts.NAME"),
    ("defaults: {ports: {htps: 1}}\n", "line 6: defaults.ports.htps: unknown key; did you mean https?"),
    ("defalts: {}\n", "line 6: defalts: unknown key; did you mean defaults?"),
    ("path: /x\n", "line 6: path: unknown key"),
    ("headscale: {}\n", "line 6: headscale.url: is missing (server_url, as clients use it)"),
    ("headscale: {url: 'https://hs.example.org/x'}\n",
     "line 6: headscale.url: 'https://hs.example.org/x' is not a URL without a path, as https://headscale.example.org"),
    ("headscale: {url: 'https://[::1'}\n", "line 6: headscale.url: 'https://[::1' is not a URL without a path, as https://headscale.example.org"),
    ("headscale: {url: 'https://hs:70000'}\n", "line 6: headscale.url: 'https://hs:70000' is not a URL without a path, as https://headscale.example.org"),
    ("headscale: {url: 'https://hs', health: 'http://h:99999999/'}\n", "line 6: headscale.health: 'http://h:99999999/' is not a URL, as https://name/path"),
    ("headscale: {url: 'https://hs', derp_map: derp.yaml}\n", "line 6: headscale.derp_map: 'derp.yaml' is not an absolute path"),
    ("headscale: {url: 'https://hs', unit: headscale}\n", "line 6: headscale.unit: 'headscale' is not a systemd unit, as headscale.service"),
    ("defaults: {ssh: {port: 0}}\nheadscale: {url: 'https://hs'}\n", "line 6: defaults.ssh.port: 0 is not between 1 and 65535"),
    ("derpmap: {omit_default_regions: 1}\n", "line 6: derpmap.omit_default_regions: 1 is not true or false"),
    ("known_hosts: []\n", "line 6: known_hosts: [] is not text: put it in quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), TOP, ids=[text for text, _ in TOP])
def test_refused_beside_the_hosts(text, message):
    assert problems(GOOD + text) == [message]


SECOND = """\
  sg1:
    domain: sg1.example.org
    region: {id: 901, code: sg, name: Singapore}
    certificate: {agree_terms: true}
"""


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        ("id: 901", "id: 900", ["line 8: hosts.sg1.region.id: 900 is taken by hosts.hk1"]),
        ("code: sg", "code: hk", ["line 8: hosts.sg1.region.code: hk is taken by hosts.hk1"]),
        (
            "sg1.example.org",
            "hk1.example.org",
            ["line 7: hosts.sg1.domain: hk1.example.org is taken by hosts.hk1"],
        ),
        ("domain: sg1", "ssh: {address: hk1.example.org}\n    domain: sg1", ["line 7: hosts.sg1.ssh.address: hk1.example.org is taken by hosts.hk1"]),
        # one error hides no other
        (
            "id: 901, code: sg",
            "id: 900, code: S G",
            [
                "line 8: hosts.sg1.region.code: 'S G' is not a region code: lower-case letters, digits and hyphens, 32 at most",
                "line 8: hosts.sg1.region.id: 900 is taken by hosts.hk1",
            ],
        ),
    ],
)  # fmt: skip
def test_values_that_two_hosts_may_not_share(old, new, messages):
    assert problems(GOOD + SECOND.replace(old, new)) == messages


def test_hosts_behind_one_address_differ_by_port_or_jump_host():
    compiled(host("ssh: {address: 10.0.0.1}") + SECOND + "    ssh: {address: 10.0.0.1, port: 2200}\n")
    compiled(host("ssh: {address: 10.0.0.1}") + SECOND + "    ssh: {address: 10.0.0.1, jump: bastion}\n")


@pytest.mark.parametrize("address", ["ipv4: 203.0.113.10", "ipv6: '2001:db8::1'"])
def test_relays_at_one_address_differ_by_port(address):
    key, value = address.replace("'", "").split(": ")
    both = host(address) + SECOND + f"    {address}\n"
    assert problems(both + "    ssh: {port: 2200}\n") == [f"line 11: hosts.sg1.{key}: {value} is taken by hosts.hk1"]
    compiled(both + "    ports: {https: 8443, stun: 3479}\n    ssh: {port: 2200}\n")


def test_all_problems_are_reported_at_once_and_a_wrong_default_once():
    text = """\
        defaults:
          ports: {https: 70000}
          certificate: {agree_terms: false}
        hosts:
          hk1: {domain: hk1.example.org, region: {id: 9000, code: hk, name: Hong Kong}, flavour: dcker}
          sg1: {domain: sg1.example.org, region: {id: 901, code: hk, name: Singapore}, flavour: docker}
        headscale: {}
        """
    assert problems(text) == [
        "line 2: defaults.ports.https: 70000 is not between 1 and 65535",
        "line 3: defaults.certificate.agree_terms: must be true: an account at Let's Encrypt needs your agreement to its terms",
        "line 5: hosts.hk1.flavour: 'dcker' is none of python, docker; did you mean docker?",
        "line 5: hosts.hk1.region.id: 9000 is not between 900 and 999",
        "line 6: hosts.sg1.docker: image or archive is missing: flavour docker needs one of them",
        "line 6: hosts.sg1.region.code: hk is taken by hosts.hk1",
        "line 7: headscale.url: is missing (server_url, as clients use it)",
    ]


def test_a_rule_is_silent_about_a_value_that_is_refused_already():
    assert problems(host("docker: {imge: x}\nflavour: docker")) == ["line 6: hosts.hk1.docker.imge: unknown key; did you mean image?"]


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
        inventory.Problem("hosts.hk1.flavour", 7, "'x' is none of python, docker"),
    )
    assert (
        error.why == "line 6: hosts.hk1.ports.https: 0 is not between 1 and 65535\nline 7: hosts.hk1.flavour: 'x' is none of python, docker"
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


CLEAR = "so whoever is between"


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
        ("ipv4: 224.0.0.1", "hosts.hk1.ipv4: 224.0.0.1 is no address of one host"),
        ("ipv4: 0.0.0.0", "hosts.hk1.ipv4: 0.0.0.0 is no address of one host"),
        ("ipv4: 169.254.1.1", "hosts.hk1.ipv4: 169.254.1.1 is no address of one host"),
        ("ipv6: 'ff02::1'", "hosts.hk1.ipv6: ff02::1 is no address of one host"),
        ("ipv6: 'fe80::1'", "hosts.hk1.ipv6: fe80::1 is no address of one host"),
        ("ports: {https: 22}", "hosts.hk1.ports.https: 22 is the port of ssh on this host"),
        ("docker: {image: '--privileged@sha256:" + "a" * 64 + "'}", "is not an image with its digest"),
        ('ssh: {user: "root\\nx"}', "is not the name of a user"),
        ("ssh: {user: -oProxyCommand=x}", "is not the name of a user"),
    ],
)
def test_values_that_cannot_be_meant(lines, said):
    assert any(said in found for found in problems(host(lines))), problems(host(lines))


def test_a_unit_is_no_option():
    assert "is not a systemd unit" in problems(GOOD + "headscale: {url: 'https://hs', unit: --now.service}\n")[0]
