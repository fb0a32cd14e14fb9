"""Every refusal of a value in a site file, in its exact words."""
# ruff: noqa: E501 - a rule and its message are on one line

import pytest

from tests.support.site_text import GOOD, SECOND, compiled, host, problems

RULES = [
    # form
    ("region: {id: 900}", "line 6: hosts.hk1.region: this key is here twice, first on line 4"),
    ("flavor: docker", "line 6: hosts.hk1.flavor: unknown key; did you mean flavour?"),
    ("zzz: 1", "line 6: hosts.hk1.zzz: unknown key; known here: domain, region, ipv4, ipv6, managed, ssh, ports, metrics, flavour, front, external, certificate, firewall, relay, docker, packages"),
    ("name: other", "line 6: hosts.hk1.name: unknown key; the host's name is its key, hk1"),
    ("flavour: podman", "line 6: hosts.hk1.flavour: 'podman' is none of python, docker, native, supervisord"),
    ("flavour: Docker", "line 6: hosts.hk1.flavour: 'Docker' is none of python, docker, native, supervisord; did you mean docker?"),
    ("ports: {https: 0}", "line 6: hosts.hk1.ports.https: 0 is not between 1 and 65535"),
    ("ports: {https: '443'}", "line 6: hosts.hk1.ports.https: '443' is not a whole number"),
    ("ports: {https: 443.5}", "line 6: hosts.hk1.ports.https: 443.5 is not a whole number"),
    ("ports: {https: true}", "line 6: hosts.hk1.ports.https: true is not a whole number"),
    ("ports: 443", "line 6: hosts.hk1.ports: the value here is not a section: its keys are on their own lines, indented"),
    ("firewall:\n  allow: 443", "line 7: hosts.hk1.firewall.allow: 443 is not a list: each entry is on its own line, behind a hyphen"),
    ("firewall:\n  allow:\n  - 443", "line 8: hosts.hk1.firewall.allow.0: 443 is not text: put it in quotes"),
    ("firewall:\n  allow:\n  - 443/sctp", "line 8: hosts.hk1.firewall.allow.0: '443/sctp' is not a port, as 8443/tcp or 60000-61000/udp"),
    ("firewall:\n  allow:\n  - 300/ip", "line 8: hosts.hk1.firewall.allow.0: '300/ip' is not a number of an IP protocol: these are 0 to 255"),
    ("firewall:\n  allow:\n  - 70000/tcp", "line 8: hosts.hk1.firewall.allow.0: '70000/tcp' is not a range of ports within 1 to 65535"),
    ("firewall:\n  allow: [9-1/tcp]", "line 7: hosts.hk1.firewall.allow.0: '9-1/tcp' is not a range of ports within 1 to 65535"),
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
    # relays of others
    ("managed: no", "line 6: hosts.hk1.managed: 'no' is not true or false"),
    (
        "relay: {mesh_key: 'env:X'}",
        "line 6: hosts.hk1.relay.mesh_key: is for a relay with managed: false: one that we deploy gets its own. Remove it",
    ),
    # secrets are never shown
    ("ssh: {password: hunter2}", "line 6: hosts.hk1.ssh.password: the value here is not a reference: env:NAME, file:PATH or cmd:COMMAND"),
    ("ssh: {password: 12345}", "line 6: hosts.hk1.ssh.password: the value here is not text: put it in quotes"),
    # rules over one host
    ("ports: {https: 80}", "line 6: hosts.hk1.ports.http: 80 is the https port already"),
    (
        "metrics: {allow: [100.64.0.0/10]}",
        "line 6: hosts.hk1.metrics.allow: without ports.metrics the metrics are on a socket for root: give them a port, such as 9411",
    ),
    (
        "flavour: native\nports: {metrics: 9411}\nmetrics: {allow: [100.64.0.0/10]}",
        "line 8: hosts.hk1.metrics.allow: derper shows its metrics on loopback only: leave this out, or take our relay",
    ),
    ("metrics: {allow: [0.0.0.0/0]}", "line 6: hosts.hk1.metrics.allow.0: '0.0.0.0/0': this is everybody: name the addresses of your Prometheus"),
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
    (
        f"front: nginx-stream\nflavour: docker\ndocker: {{image: 'derper@sha256:{'0' * 64}'}}",
        "line 6: hosts.hk1.front: nginx-stream hands TLS on with the PROXY protocol, which derper does not know: "
        "use our own relay (flavour: python), or front: nginx, direct, or external with tls: terminated",
    ),
    ("front: external", "line 2: hosts.hk1.external: is missing: front external needs the kind of your front"),
    (
        "front: external\nexternal: {kind: caddy}",
        "line 7: hosts.hk1.external.tls: 'passthrough' is not possible with caddy: set it to terminated",
    ),
    (
        "front: external\nexternal: {kind: caddy, tls: terminated}",
        "line 5: hosts.hk1.certificate.source: 'letsencrypt' has no effect behind a front that terminates TLS "
        "with a certificate of its own: set it to front",
    ),
    (
        "packages: {mirror: {debain: 'https://mirror.example.org/debian'}}",
        "line 6: hosts.hk1.packages.mirror.debain: 'debain' is none of debian, ubuntu, rocky, almalinux; did you mean debian?",
    ),
    (
        "packages: {from: controller, mirror: {debian: 'https://mirror.example.org/debian'}}",
        "line 6: hosts.hk1.packages.mirror: is for hosts that fetch packages: remove it, or set packages.from to host",
    ),
    (
        "flavour: docker\ndocker: {archive: a.tar, packages: docker}\npackages: {from: controller}",
        "line 7: hosts.hk1.docker.packages: the controller brings packages of the distribution only: use "
        "distribution, or set packages.from to host",
    ),
    ("relay: {program: go}", "line 6: hosts.hk1.relay.program: 'go' is none of python, derper"),
    (
        "relay: {under: Systemd}",
        "line 6: hosts.hk1.relay.under: 'Systemd' is none of systemd, docker, supervisord; did you mean systemd?",
    ),
    *(
        (
            f"relay: {words}",
            "line 6: hosts.hk1.relay.under: program python does not run under supervisord, as it gets its "
            "sockets, its sandbox and its reloads from systemd: "
            "set relay.under to systemd, or relay.program to derper",
        )
        for words in ("{under: supervisord}", "{program: python, under: supervisord}")
    ),
    *(
        (
            f"docker: {{archive: a.tar}}\nrelay: {words}",
            "line 7: hosts.hk1.relay.under: program python does not run under docker, as it gets its sockets, "
            "its sandbox and its reloads from systemd: "
            "set relay.under to systemd, or relay.program to derper",
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
    ("relay: {admission: any}", "line 6: hosts.hk1.relay.admission: 'any' is none of headscale, url, tailscaled, keys, open"),
    ("relay: {admission: url}", "line 6: hosts.hk1.relay.admission: url needs relay.verify_client_url: give one"),
    ("relay: {admission: keys}", "line 6: hosts.hk1.relay.admission: keys needs relay.keys or relay.keys_file: give one"),
    (
        f"relay: {{admission: keys, keys: ['nodekey:{'0' * 64}'], keys_file: nodes.txt}}",
        "line 6: hosts.hk1.relay.admission: keys needs relay.keys or relay.keys_file: give one",
    ),
    ("relay: {admission: keys, keys: [abc]}", "line 6: hosts.hk1.relay.keys.0: 'abc' is not a node key, as nodekey: with 64 lower-case hex digits"),
    (
        f"relay: {{keys: ['nodekey:{'0' * 64}']}}",
        "line 6: hosts.hk1.relay.keys: goes with relay.admission keys, which is not given: keep one of them",
    ),
    (
        "relay: {admission: tailscaled, open: true}",
        "line 6: hosts.hk1.relay.open: goes with relay.admission open, which is tailscaled: keep one of them",
    ),
    (
        "relay: {admission: tailscaled, tailscaled: {socket: /tmp/ts.sock}}",
        "line 6: hosts.hk1.relay.tailscaled.socket: '/tmp/ts.sock' is not a path below /run, where the relay sees sockets",
    ),
    (
        "flavour: docker\nrelay: {admission: tailscaled}\ndocker: {archive: a.tar}",
        "line 7: hosts.hk1.relay.admission: tailscaled is not possible with derper under docker, as a container "
        "does not reach the host's socket: use flavour: python, native or supervisord, or relay.admission: "
        "headscale or url",
    ),
    (
        "relay: {admission: tailscaled, tailscaled: {manage: true}}",
        "line 6: hosts.hk1.relay.tailscaled.auth_key: is missing: a tailscaled of our own joins its tailnet "
        "with one, as env:TS_AUTHKEY",
    ),
    (
        "relay: {admission: tailscaled, tailscaled: {manage: true, auth_key: hskey-1}}",
        "line 6: hosts.hk1.relay.tailscaled.auth_key: the value here is not a reference: env:NAME, file:PATH or cmd:COMMAND",
    ),
    (
        "relay: {admission: tailscaled, tailscaled: {manage: true, auth_key: 'env:A', socket: /run/x.sock}}",
        "line 6: hosts.hk1.relay.tailscaled.socket: is for a tailscaled that is there already: leave it out, "
        "or manage",
    ),
    *(
        (
            f"relay: {{admission: tailscaled, tailscaled: {{{key}: '{value}'}}}}",
            f"line 6: hosts.hk1.relay.tailscaled.{key}: is for a tailscaled of our own: set "
            "relay.tailscaled.manage to true, or leave it out",
        )
        for key, value in (("auth_key", "env:A"), ("login_server", "https://hs.example.org"))
    ),
    (
        "relay: {tailscaled: {manage: true, auth_key: 'env:A'}}",
        "line 6: hosts.hk1.relay.tailscaled: goes with relay.admission tailscaled, which is not given: keep one "
        "of them",
    ),
    *(
        (
            f"flavour: {flavour}\nrelay: {{admission: keys, keys: ['nodekey:{'0' * 64}']}}\n{more}",
            f"line 7: hosts.hk1.relay.admission: keys is not possible with derper under {under}, as derper "
            "knows no such list: use flavour: python, or relay.admission: headscale or url",
        )
        for flavour, under, more in (
            ("native", "systemd", ""),
            ("supervisord", "supervisord", ""),
            ("docker", "docker", "docker: {archive: a.tar}"),
        )
    ),
    (
        "relay: {admission: headscale}",
        "line 6: hosts.hk1.relay.admission: the site has no section headscale: add it, or use url with relay.verify_client_url",
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
    ("domain: hk1.example.org", "domain: '[2001:db8::1]'", "line 3: hosts.hk1.domain: '[2001:db8::1]': an IPv6 address cannot be the relay's name, as many networks cannot reach it: give a host name or the IPv4 address here, and the IPv6 address as ipv6"),
    ("domain: hk1.example.org", "domain: 203.0.113.300", "line 3: hosts.hk1.domain: '203.0.113.300' is neither a host name nor an IPv4 address"),
    ("domain: hk1.example.org", "domain: 203.0.113.10",
     "line 3: hosts.hk1.domain: '203.0.113.10' is an address, for which letsencrypt gives short-lived certificates only: set certificate.profile to shortlived, or use certificate.source: self-signed"),
    ("    domain: hk1.example.org\n", "", "line 2: hosts.hk1.domain: is missing (the relay's name; it may be an IPv4 address, with a pinned or a short-lived certificate)"),
    ("agree_terms: true}", "agree_terms: true, challenge: standalone}\n    front: direct",
     "line 5: hosts.hk1.certificate.stop: is missing: the service that has the http port, such as apache2.service"),
    ("hk1:", "h k:", "line 2: hosts.h k: 'h k' is not a host's name: letters, digits, dots, underscores and hyphens"),
    ("hk1:", "Headscale:", "line 2: hosts.Headscale: 'Headscale' is no name for a relay: it is the headscale host's own"),
    ("hk1:", "prover.json:", "line 2: hosts.prover.json: 'prover.json' is no name for a relay: a file of that name is among the hosts' folders"),
    ("hk1.example.org", "CHANGE-ME",
     "line 3: hosts.hk1.domain: CHANGE-ME is only a placeholder: write your own (the relay's name; it may be an IPv4 address, with a pinned or a short-lived certificate)"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), REPLACED, ids=[f"{new}" for _, new, _ in REPLACED])
def test_refused_instead(old, new, message):
    assert problems(GOOD.replace(old, new, 1)) == [message]


@pytest.mark.parametrize(
    ("canary", "message"),
    [
        ("[hk2]", "rollout.canary.0: no host of this site has the name 'hk2'; its hosts are hk1, k8s1"),
        ("[hk1, 7]", "rollout.canary.1: 7 is not text: put it in quotes"),
        ("[k8s1]", "rollout.canary.0: somebody else runs hosts.k8s1 (managed: false): name a host of ours"),
    ],
)
def test_a_canary_is_a_host_of_ours(canary, message):
    region = "{id: 910, code: k8s, name: Cluster}"
    other = f"  k8s1: {{domain: k8s.example.org, region: {region}, managed: false}}\n"
    assert problems(f"{GOOD}{other}rollout: {{canary: {canary}}}\n") == [f"line 7: {message}"]
    assert compiled(f"{GOOD}{other}rollout: {{canary: [hk1]}}\n").rollout.canary == ("hk1",)


# The keys of a certificate, and the problem with one of them.
CERTIFICATE = [
    ("agree_terms: true, names: ['*.example.org']", "names.0: '*.example.org' is a wildcard, which is proved in its DNS zone only: use challenge: dns"),
    ("agree_terms: true, names: [a.example.org, a.example.org]", "names.1: 'a.example.org' is there twice: keep one of them"),
    ("agree_terms: true, certbot: distribution, profile: shortlived", "profile: needs the shipped certbot, as the distribution's may be too old: remove certbot"),
    ("source: self-signed, names: [a.example.org]", "names: has no effect: source self-signed orders no certificate. Remove it"),
    ("agree_terms: true, challenge: dns", "dns: is missing: challenge dns needs the provider of the zone, and a secret for it"),
    ("agree_terms: true, challenge: dns, dns: {provider: cloudflare}", "dns.secret: is missing (the TSIG key, the API token or the secret key; it is kept on the host, mode 0600)"),
    ("agree_terms: true, challenge: dns, dns: {provider: route53, secret: 'env:X'}", "dns.access_key: is missing: route53 needs access_key"),
    ("agree_terms: true, challenge: dns, dns: {provider: cloudflare, secret: 'env:X', server: 192.0.2.1}", "dns.server: has no effect: cloudflare does not know it. Remove it"),
    ("agree_terms: true, challenge: dns, dns: {provider: cloudflare, secret: a-real-token}", "dns.secret: the value here is not a reference: env:NAME, file:PATH or cmd:COMMAND"),
    ("agree_terms: true, stop: apache2.service", "stop: has no effect: set certificate.challenge to standalone, or remove this key"),
    ("agree_terms: true, challenge: standalone, stop: nginx.service", "challenge: is not needed: nginx answers challenges while it runs. Remove this key"),
    ("agree_terms: true, stop: apache2", "stop: 'apache2' is not a systemd unit, as headscale.service"),
    ("source: self-signed, dns: {provider: cloudflare, secret: 'env:X'}", "dns: has no effect: source self-signed orders no certificate. Remove it"),
    ("source: self-signed, stop: apache2.service", "stop: has no effect: source self-signed orders no certificate. Remove it"),
    ("agree_terms: true, dns: {provider: cloudflare, secret: 'env:X'}", "dns: has no effect: set certificate.challenge to dns, or remove this key"),
    ("source: letsencrypt", "agree_terms: must be true: an account at Let's Encrypt needs your agreement to its terms"),
    ("source: letsencrypt-staging", "agree_terms: must be true: an account at Let's Encrypt needs your agreement to its terms"),
    ("source: acme", "server: is missing: source acme needs the ACME directory's URL"),
    ("source: manual, key: 'file:k'", "fullchain: is missing: source manual needs fullchain and key"),
    ("source: manual, fullchain: f", "key: is missing: source manual needs fullchain and key"),
    ("source: self-signed, pin: AB", "pin: 'AB' is not 64 lower-case hex digits"),
    ("agree_terms: true, contact: me", "contact: 'me' is not a mail address"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), CERTIFICATE, ids=[keys for keys, _ in CERTIFICATE])
def test_refused_in_a_certificate(keys, message):
    text = GOOD.replace("agree_terms: true", keys, 1)
    assert problems(text) == [f"line 5: hosts.hk1.certificate.{message}"]


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
        "line 1: hosts.hk1.domain: is missing (the relay's name; it may be an IPv4 address, with a pinned or a short-lived certificate)",
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
    ('a: 1\nb: "x\\ud800"\n', ["line 2: the character U+D800 is not allowed in YAML"]),
    ('a: 1\n"\\udfff": 1\n', ["line 2: the character U+DFFF is not allowed in YAML"]),
    ('a: 1\nb: "\\U00110000"\n', ["a character has a number beyond U+10FFFF"]),
    ("[a]: 1\n", ["line 1: a key is a word, not a list or a mapping"]),
    ("a: &x {b: {<<: *x}}\n", ["line 1: this alias leads back to itself"]),
    (f"a: {'9' * 101}\n", ["line 1: a number has more than 100 digits"]),
    ("<<: 1\n", ["line 1: << takes a mapping, or a list of mappings"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "messages"), WHOLE, ids=[text for text, _ in WHOLE])
def test_refused_as_a_whole(text, messages):
    assert problems(text) == [message.lstrip() for message in messages]


TOP = [
    ("headscale: {url: 'https://hs', map_file: x.yaml, unit: headscale.service}\n", "line 6: headscale.unit: has no effect beside map_file, as the headscale host is left alone: keep one of them"),
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
    ("tailscale: {}\n", "line 6: tailscale: api_key or oauth is missing: one of them may write the tailnet's policy"),
    ("tailscale: {api_key: 'env:K', oauth: {id: k, secret: 'env:S'}}\n", "line 6: tailscale.oauth: api_key and oauth are both given: keep one of them"),
    ("tailscale: {api_key: tskey-api-1}\n", "line 6: tailscale.api_key: the value here is not a reference: env:NAME, file:PATH or cmd:COMMAND"),
    ("tailscale: {oauth: {id: k}}\n", "line 6: tailscale.oauth.secret: is missing"),
    ("tailscale: {api_key: 'env:K', tailnet: 'a/b'}\n", "line 6: tailscale.tailnet: 'a/b' is not a tailnet, as example.com or -"),
    *(
        (f"tailscale: {{api_key: 'env:K', api: '{api}'}}\n", f"line 6: tailscale.api: '{api}' is not an https URL without a path")
        for api in ("http://api.tailscale.com", "https://api/x", "https://api:70000", "https://me@api")
    ),
    ("headscale: {url: 'https://hs'}\ntailscale: {api_key: 'env:K'}\n", "line 7: tailscale: clients get one map, and headscale is a control server, too: keep one of both sections"),
    ("known_hosts: []\n", "line 6: known_hosts: [] is not text: put it in quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), TOP, ids=[text for text, _ in TOP])
def test_refused_beside_the_hosts(text, message):
    assert problems(GOOD + text) == [message]


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
    both = host(address) + SECOND + f"    {address}\n    ssh: {{port: 2200}}\n"
    assert problems(both) == [f"line 11: hosts.sg1.{key}: {value} is taken by hosts.hk1"]
    compiled(both + "    ports: {https: 8443, stun: 3479}\n")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("ipv6: '2001:db8::1'", "ipv6: '2001:DB8:0::1'", "ipv6: 2001:DB8:0::1 is taken by hosts.hk1"),
        ("ipv4: 203.0.113.10", "ipv4: 203.0.113.10\n    ports: {https: 443}", "ipv4: 203.0.113.10 is taken by hosts.hk1"),
        ("ssh: {address: a.example}", "ssh: {address: A.example, port: 22}", "ssh.address: A.example is taken by hosts.hk1"),
    ],
)
def test_one_value_may_be_written_in_several_ways(first, second, message):
    assert problems(host(first) + SECOND + f"    {second}\n")[-1].endswith(f"hosts.sg1.{message}")


OF_OTHERS = """\
hosts:
  k1: {domain: derp.example.org, ipv4: 203.0.113.40, region: {id: 910, code: k8s, name: Cluster}, managed: false}
  k2: {domain: derp2.example.org, ipv4: 203.0.113.40, ports: {https: 8443}, region: {id: 911, code: k82, name: Cluster}, managed: false}
"""


def test_a_relay_of_others_needs_nothing_for_a_deploy():
    site = compiled(OF_OTHERS)
    assert site.hosts["k1"].ssh.address is None
    assert site.hosts["k1"].certificate.agree_terms is False


def test_the_pin_of_a_relay_of_others_is_read_by_nobody():
    text = OF_OTHERS.replace("managed: false}", "managed: false, certificate: {source: self-signed}}", 1)
    assert problems(text) == [
        "line 2: hosts.k1.certificate.pin: is missing: with managed: false nobody reads it on the host"
    ]


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ("metrics: {allow: [100.64.0.0/10]}", "metrics"),
        ("ssh: {user: root}", "ssh"),
        ("ports: {metrics: 9411, stun: 3479}", "ports.metrics"),
        ("relay: {open: true, connections_per_address: 64}", "relay.connections_per_address"),
        ("certificate: {renewal: cron, source: letsencrypt}", "certificate.renewal"),
    ],
)
def test_a_key_about_the_host_of_a_relay_of_others_has_no_effect(more, path):
    text = OF_OTHERS.replace("managed: false}", f"managed: false, {more}}}", 1)
    assert problems(text) == [
        f"line 2: hosts.k1.{path}: has no effect with managed: false, as somebody else runs that host: remove it"
    ]


def test_defaults_and_keys_without_a_value_are_no_keys_of_a_relay_of_others():
    text = OF_OTHERS.replace("managed: false}", "managed: false, ssh: null, relay: {open: true, program: null}}", 1)
    defaults = "defaults:\n  ssh: {user: root}\n  metrics: {allow: [100.64.0.0/10]}\n"
    assert compiled(defaults + text).hosts["k1"].ssh.user == "root"


def test_a_key_of_a_relay_of_others_that_is_wrong_is_reported_once():
    text = OF_OTHERS.replace("managed: false}", "managed: false, ssh: {port: 0}, zzz: 1}", 1)
    assert [problem.partition(" ")[2].partition(": ")[2].partition(":")[0] for problem in problems(text)] == [
        "hosts.k1.ssh.port",
        "hosts.k1.zzz",
    ]


def test_nobody_of_ours_says_whom_a_relay_of_others_asks():
    assert compiled(OF_OTHERS + "headscale: {url: http://hs.example.org}\n").hosts.keys() == {"k1", "k2"}


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
        "line 5: hosts.hk1.flavour: 'dcker' is none of python, docker, native, supervisord; did you mean docker?",
        "line 5: hosts.hk1.region.id: 9000 is not between 900 and 999",
        "line 6: hosts.sg1.docker: image or archive is missing: flavour docker needs one of them",
        "line 6: hosts.sg1.region.code: hk is taken by hosts.hk1",
        "line 7: headscale.url: is missing (server_url, as clients use it)",
    ]


def test_a_rule_is_silent_about_a_value_that_is_refused_already():
    assert problems(host("docker: {imge: x}\nflavour: docker")) == ["line 6: hosts.hk1.docker.imge: unknown key; did you mean image?"]
