"""Rules beyond the form of values: over one host, and over all. Pure.

Each rule yields findings: the path of the key to change, the message, and the other keys that it
looked at. If one of those is itself in error, the finding is not reported, because it may be a mere
consequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from inventory import addresses, admission_rules, certificate_rules
from inventory.admission_rules import is_in_the_clear
from inventory.choices import (
    ADMISSIONS,
    FLAVOURS,
    PROGRAMS,
    combination_of,
    combination_of_flavour,
    external_of,
    front_of,
    packages_of,
    program_of,
    runner_of,
    source_of,
)
from inventory.finding import Finding, Rule
from inventory.model import Host, Ports

Path = tuple[str | int, ...]
HEADSCALE = "headscale"
"""The headscale host's name in output, for --host, and under .runs."""
PROVER_FILE = "prover.json"
"""The prover's keys, beside the hosts' folders under .runs."""
HISTORY = "history"
"""The history of proofs, beside the hosts' folders under .runs."""
ALERTS = "alerts.json"
"""What `invoke status --notify` remembers, beside the hosts' folders under .runs."""
SSH_PORT = 22
RESERVED = {
    HEADSCALE: "it is the headscale host's own",
    PROVER_FILE: "a file of that name is among the hosts' folders",
    ALERTS: "a file of that name is among the hosts' folders",
    HISTORY: "the history of proofs has a folder of that name among the hosts' folders",
}


def host_findings(host: Host) -> Iterator[Finding]:
    """Yield the findings of every rule over one host.

    Those about a deploy do not hold for a relay that somebody else runs.
    """
    for rule in _RULES if host.managed else _RULES_OF_OTHERS:
        yield from rule(host)


def _tcp_ports(host: Host) -> dict[str, int]:
    """Return the TCP ports that are used, by name. STUN's is UDP and may have any number."""
    front = front_of(host)
    used = ["https", "http", "metrics"] + (["backend"] if front.hides_relay else [])
    used += ["challenge"] if front.is_others and source_of(host).is_acme else []
    return {name: port for name in used if (port := getattr(host.ports, name)) is not None}


def _ports_differ(host: Host) -> Iterator[Finding]:
    seen: dict[int, str] = {}
    for name, port in _tcp_ports(host).items():
        if port in seen:
            other = seen[port]
            yield Finding(f"ports.{name}", f"{port} is the {other} port already", (f"ports.{other}",))
        seen.setdefault(port, name)


def _metrics_have_a_port(host: Host) -> Iterator[Finding]:
    if not host.metrics.allow:
        return
    if not program_of(host).has_own_metrics:
        words = "derper shows its metrics on loopback only: leave this out, or take our relay"
        yield Finding("metrics.allow", words, ("relay", "flavour"))
    elif host.ports.metrics is None:
        words = "without ports.metrics the metrics are on a socket for root: give them a port, such as 9411"
        yield Finding("metrics.allow", words, ("ports.metrics",))


def _no_port_is_sshs(host: Host) -> Iterator[Finding]:
    for name, port in _tcp_ports(host).items():
        if port == (host.ssh.port or SSH_PORT):
            words = f"{port} is the port of ssh on this host: give it another"
            yield Finding(f"ports.{name}", words, ("ssh.port",))


def _address_is_one_hosts(host: Host) -> Iterator[Finding]:
    for name in ("ipv4", "ipv6"):
        address = getattr(host, name)
        if address is None:
            continue
        if not addresses.is_one_hosts(address):
            words = f"{address} is not the internet address of one host: clients are sent there"
            yield Finding(name, words)
        elif addresses.is_private(address):
            yield Finding(
                name,
                f"{address} is no public address, and clients are sent there: if it is only where to log in, "
                f"set ssh.address to it; leave {name} out if clients find the relay by its name",
            )


def _program_and_runner_fit(host: Host) -> Iterator[Finding]:
    flavour = combination_of_flavour(host)
    long_form = {"program": host.relay.program, "under": host.relay.under}
    differing = [key for key, word in long_form.items() if word and word != getattr(flavour, key)]
    if "flavour" in host.model_fields_set and differing:
        key = differing[0]
        yield Finding(
            f"relay.{key}",
            f"'{long_form[key]}' contradicts flavour: {host.flavour}, which is short for program "
            f"{flavour.program} under {flavour.under}: "
            "keep either flavour, or relay.program with relay.under",
            ("flavour",),
        )
    elif differing and combination_of(host) not in FLAVOURS.values():
        program, under = combination_of(host)
        its_runner = next(one.under for one in FLAVOURS.values() if one.program == program)
        its_program = next(one.program for one in FLAVOURS.values() if one.under == under)
        yield Finding(
            f"relay.{differing[0]}",
            f"program {program} does not run under {under}, as {PROGRAMS[program].kept_by}: "
            f"set relay.under to {its_runner}, or relay.program to {its_program}",
            ("relay.program", "relay.under"),
        )


def _derper_speaks_tls(host: Host) -> Iterator[Finding]:
    # derper serves TLS on port 443 or with -certmode manual; else plain HTTP
    # (tailscale: cmd/derper/derper.go, serveTLS)
    speaks_tls = program_of(host).tls_only_on_443 and not front_of(host).terminates_tls
    if speaks_tls and host.ports.https != 443 and source_of(host).is_letsencrypt:
        yield Finding(
            "ports.https",
            "with its own letsencrypt, derper serves plain HTTP on any port but 443, so also on "
            f"{host.ports.https}: use front: nginx, port 443, or certificate.source: manual",
            ("flavour", "relay.program", "front", "certificate.source"),
        )


def _derper_reads_no_proxy_header(host: Host) -> Iterator[Finding]:
    if front_of(host).passes_tls_on and not program_of(host).reads_proxy_header:
        yield Finding(
            "front",
            f"{host.front} hands TLS on with the PROXY protocol, which {host.program} does not know: use our "
            "own relay (flavour: python), or front: nginx, direct, or external with tls: terminated",
            ("flavour", "relay.program", "external.tls"),
        )


def _external_is_whole(host: Host) -> Iterator[Finding]:
    if not front_of(host).is_others:
        return
    if host.external is None:
        yield Finding("external", "is missing: front external needs the kind of your front", ("front",))
    elif host.external.tls not in external_of(host.external).tls:
        (only,) = external_of(host.external).tls
        message = f"'{host.external.tls}' is not possible with {host.external.kind}: set it to {only}"
        yield Finding("external.tls", message, ("external.kind",))


def _one_has_the_certificate(host: Host) -> Iterator[Finding]:
    front, source = front_of(host), source_of(host)
    has_own = front.is_others and front.terminates_tls
    if has_own and not source.is_front:
        yield Finding(
            "certificate.source",
            f"'{host.source}' has no effect behind a front that terminates TLS with a "
            "certificate of its own: set it to front",
            ("front", "external.tls"),
        )
    elif source.is_front and not has_own:
        yield Finding(
            "certificate.source",
            "'front' is for a front of yours that terminates TLS: set front to external and external.tls to "
            "terminated, or use another source",
            ("front", "external.tls"),
        )


def _image_has_one_source(host: Host) -> Iterator[Finding]:
    if not runner_of(host).in_container:
        return
    if not host.docker.image and not host.docker.archive:
        said_by = f"relay.under {host.relay.under}" if host.relay.under else "flavour docker"
        message = f"image or archive is missing: {said_by} needs one of them"
        yield Finding("docker", message, ("flavour", "relay.under"))
    if host.docker.image and host.docker.archive:
        message = "image and archive are both given: keep one of them"
        yield Finding("docker.archive", message, ("docker.image",))


def _place_is_whole(host: Host) -> Iterator[Finding]:
    if (host.region.latitude is None) != (host.region.longitude is None):
        missing = "longitude" if host.region.longitude is None else "latitude"
        yield Finding(f"region.{missing}", "is missing: latitude and longitude come together")


def _open_ports_are_ports(host: Host) -> Iterator[Finding]:
    for index, entry in enumerate(host.firewall.allow):
        numbers, _, proto = entry.partition("/")
        first, _, last = numbers.partition("-")
        if proto == "ip" and int(first) > 255:
            message = f"'{entry}' is not a number of an IP protocol: these are 0 to 255"
            yield Finding(f"firewall.allow.{index}", message)
        elif not 1 <= int(first) <= int(last or first) <= 65535:
            yield Finding(f"firewall.allow.{index}", f"'{entry}' is not a range of ports within 1 to 65535")


def _pin_is_given(host: Host) -> Iterator[Finding]:
    if source_of(host).needs_pin and host.certificate.pin is None:
        words = "is missing: with managed: false nobody reads it on the host"
        yield Finding("certificate.pin", words, ("managed", "certificate.source"))


def _mesh_key_is_of_others(host: Host) -> Iterator[Finding]:
    if host.relay.mesh_key is not None:
        words = "is for a relay with managed: false: one that we deploy gets its own. Remove it"
        yield Finding("relay.mesh_key", words, ("managed",))


def _packages_can_be_brought(host: Host) -> Iterator[Finding]:
    looked_at = ("packages.from",)
    if packages_of(host).is_brought and host.packages.mirror:
        message = "is for hosts that fetch packages: remove it, or set packages.from to host"
        yield Finding("packages.mirror", message, looked_at)
    if packages_of(host).is_brought and runner_of(host).in_container and host.docker.packages == "docker":
        message = (
            "the controller brings packages of the distribution only: use distribution, or set packages.from "
            "to host"
        )
        yield Finding("docker.packages", message, looked_at)


_RULES_OF_OTHERS: tuple[Rule, ...] = (_address_is_one_hosts, _pin_is_given, _place_is_whole)
_RULES: tuple[Rule, ...] = (
    _ports_differ,
    _no_port_is_sshs,
    _metrics_have_a_port,
    _address_is_one_hosts,
    _program_and_runner_fit,
    _derper_speaks_tls,
    _derper_reads_no_proxy_header,
    _external_is_whole,
    _one_has_the_certificate,
    *certificate_rules.RULES,
    _image_has_one_source,
    *admission_rules.RULES,
    _mesh_key_is_of_others,
    _place_is_whole,
    _open_ports_are_ports,
    _packages_can_be_brought,
)

Raw = Mapping[str, Any]
_OF_ITS_HOST = ("config", "derp_map", "unit", "metrics", "health")  # `ssh` may be from `defaults`
# The words with which the site's headscale is asked; None: it is not given.
_ASK_HEADSCALE = (None, *(word for word, row in ADMISSIONS.items() if row.url == HEADSCALE))

# Values that no two hosts share, by the path that a finding names. Several hosts may be behind one
# address: relays by port, logins by port or jump host.
_OF_ONE_HOST: Mapping[Path, tuple[Path, ...]] = {
    ("domain",): (("domain",),),
    ("region", "id"): (("region", "id"),),
    ("region", "code"): (("region", "code"),),
    ("ipv4",): (("ipv4",), ("ports", "https")),
    ("ipv6",): (("ipv6",), ("ports", "https")),
    ("ssh", "address"): (("ssh", "address"), ("ssh", "port"), ("ssh", "jump")),
}
_DEFAULTS: Mapping[Path, int] = {("ports", "https"): Ports().https, ("ssh", "port"): SSH_PORT}


def reserved(hosts: Mapping[str, Raw]) -> Iterator[tuple[Path, str]]:
    """Yield the hosts with a reserved name, in any case, as some file systems ignore case."""
    for name in hosts:
        if name.lower() in RESERVED:
            yield ("hosts", name), f"'{name}' is no name for a relay: {RESERVED[name.lower()]}"


def one_control_server(raw: Raw) -> Iterator[tuple[Path, str]]:
    """Yield a second control server, and a key for Tailscale's policy that is missing or double."""
    tailscale = raw.get("tailscale")
    if tailscale is not None and raw.get(HEADSCALE) is not None:
        words = f"clients get one map, and {HEADSCALE} is a control server, too: keep one of both sections"
        yield ("tailscale",), words
    if isinstance(tailscale, dict):
        given = [key for key in ("api_key", "oauth") if tailscale.get(key) is not None]
        if not given:
            yield ("tailscale",), "api_key or oauth is missing: one of them may write the tailnet's policy"
        elif len(given) > 1:
            yield ("tailscale", "oauth"), "api_key and oauth are both given: keep one of them"


def of_no_effect(headscale: Any) -> Iterator[tuple[Path, str]]:
    """Yield the keys about the headscale host that have no effect beside headscale.map_file."""
    for key in _OF_ITS_HOST if _at(headscale, ("map_file",)) is not None else ():
        if _at(headscale, (key,)) is not None:
            words = "has no effect beside map_file, as the headscale host is left alone: keep one of them"
            yield (HEADSCALE, key), words


def asked_of_nobody(headscale: Any, hosts: Mapping[str, Raw]) -> Iterator[tuple[Path, str]]:
    """Yield the hosts whose relay is to ask a headscale that the site does not have."""
    for name, host in hosts.items() if headscale is None else ():
        word = _at(host, ("relay", "admission"))
        if word is not None and word in _ASK_HEADSCALE:
            words = f"the site has no section {HEADSCALE}: add it, or use url with relay.verify_client_url"
            yield ("hosts", name, "relay", "admission"), words


def asked_in_the_clear(headscale: Any, hosts: Mapping[str, Raw]) -> Iterator[tuple[Path, str]]:
    """Yield our hosts whose clients headscale is asked about over http, which nobody said twice."""
    url = _at(headscale, ("url",))
    ours = {name: host for name, host in hosts.items() if _at(host, ("managed",)) is not False}
    for name, host in ours.items() if isinstance(url, str) and url.startswith("http://") else ():
        own = [_at(host, ("relay", key)) for key in ("open", "verify_client_url", "verify_insecure")]
        if is_in_the_clear(url) and not any(own) and _at(host, ("relay", "admission")) in _ASK_HEADSCALE:
            yield (
                (HEADSCALE, "url"),
                f"is http, so anyone between hosts.{name} and headscale can let anyone use the relay: "
                f"use https, or set hosts.{name}.relay.verify_insecure to true as well",
            )


def canaries(raw: Raw, hosts: Mapping[str, Raw]) -> Iterator[tuple[Path, str]]:
    """Yield the canaries of the site's rollouts that name no host which one could begin with."""
    named = _at(raw, ("rollout", "canary"))
    for place, name in enumerate(named if isinstance(named, list) else ()):
        path = ("rollout", "canary", place)
        if name not in hosts:
            yield path, f"no host of this site has the name {name!r}; its hosts are {', '.join(hosts)}"
        elif _at(hosts[name], ("managed",)) is False:
            yield path, f"somebody else runs hosts.{name} (managed: false): name a host of ours"


def duplicates(hosts: Mapping[str, Raw]) -> Iterator[tuple[Path, str]]:
    """Yield the values that two hosts share and must not.

    It reads the merged but unvalidated hosts, so that other errors hide none of them.
    """
    for path, parts in _OF_ONE_HOST.items():
        first: dict[tuple[str, ...], str] = {}
        for name, host in hosts.items():
            written = _at(host, path)
            value = tuple(_value(host, part) for part in parts)
            if written is None:
                continue
            if value in first:
                yield ("hosts", name, *path), f"{written} is taken by hosts.{first[value]}"
            first.setdefault(value, name)


def _value(host: Raw, path: Path) -> str:
    """Return a value in one spelling: with its default, in lower case, an address as its number."""
    value = str(_at(host, path) or _DEFAULTS.get(path)).lower()
    with suppress(ValueError):
        value = str(ip_address(value))
    return value


def _at(part: Any, path: Path) -> Any:
    for step in path:
        part = part.get(step) if isinstance(part, dict) else None
    return part
