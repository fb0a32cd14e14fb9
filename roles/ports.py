"""Who listens on a relay host already, and which of them stand in the way. Found before anything is changed. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from engine.facts import Ask, Facts, Listener
from inventory.model import Host
from roles import paths
from roles.front.nginx import neighbours
from roles.wiring import Use, wire

_GIVEN = "/proc/sys/net/ipv4/ip_local_port_range"  # who asks for any port gets one of these; one beyond was chosen
# Programs of a usual host that ask others from high ports, some from ones that they choose. At most 15 characters, as /proc has them.
_ONLY_CLIENTS = (
    *("avahi-daemon", "chronyd", "dhclient", "dhcpcd", "dnsmasq", "named", "ntpd", "rpc.statd", "rpcbind", "rsyslogd"),
    *("systemd-network", "systemd-resolve", "systemd-timesyn", "unbound"),
)

ASK = Ask(
    files=(f"{paths.SYSTEMD}/{paths.SOCKET}", _GIVEN),
    commands={"container": ("docker", "container", "inspect", "--format", "{{json .HostConfig}}", paths.CONTAINER)},
)


def taken(host: Host, facts: Facts) -> list[str]:
    """A sentence for each wanted port that somebody else has."""
    return [
        f"port {use.port}/{use.proto} of {host.name}, where {use.purpose}, is taken by {who(listener)}: "
        f"stop that program, or set hosts.{host.name}.{use.key} to another port."
        for use in wire(host).uses
        for listener in _in_the_way(use, facts)[:1]
    ]


def strangers(host: Host, facts: Facts, allowed: set[tuple[str, int]]) -> list[Listener]:
    """Public listeners of others that a closed firewall would cut off."""
    found: dict[tuple[str, int], Listener] = {}
    told = [listener for use in wire(host).uses for listener in _in_the_way(use, facts)]
    for listener in facts.listening:
        key = (listener.proto, listener.port)
        if not (
            _is_loopback(listener) or key in allowed or listener in told or is_ours(listener, facts) or _needs_no_port(listener, facts)
        ):
            found.setdefault(key, listener)
    return [found[key] for key in sorted(found)]


def who(listener: Listener) -> str:
    """The program in words."""
    if not listener.program:
        return "something in the kernel or in a namespace of its own"
    return f"{listener.program} (pid {listener.pid}{', ' + listener.unit if listener.unit else ''})"


def is_ours(listener: Listener, facts: Facts) -> bool:
    """Whether a listener is the relay's, of either flavour."""
    key = (listener.proto, listener.port)
    if listener.unit.startswith("derpfleet-"):
        return True
    if listener.program == "systemd":  # it holds our sockets for us
        return key in _socket_ports(facts)
    return listener.program in ("docker-proxy", "derper") and (key in _container_ports(facts) or _in_host_network(facts))


def _in_the_way(use: Use, facts: Facts) -> list[Listener]:
    other_sites = {listen.port for server in neighbours.others(facts) for listen in server.listens}
    leaves = use.port not in other_sites and not neighbours.unreadable(facts)
    known = neighbours.nginx_was_there(facts)  # else it is one of somebody's own, out of sight, which is not shared with
    return [
        listener
        for listener in facts.listening
        if (listener.proto, listener.port) == (use.proto, use.port)
        and not is_ours(listener, facts)
        and (use.public or _meets_loopback(listener))
        and not (listener.unit == "nginx.service" and known and (use.program == "nginx" or leaves))
    ]


def _is_loopback(listener: Listener) -> bool:
    return listener.address.startswith("127.") or listener.address in ("::1", "::ffff:127.0.0.1")


def _meets_loopback(listener: Listener) -> bool:
    return listener.address in ("0.0.0.0", "::", "127.0.0.1")  # noqa: S104 - compared, not bound


def _needs_no_port(listener: Listener, facts: Facts) -> bool:
    """Discovery on the link, which nobody on the internet needs. And clients' sockets: answers to what they asked are let in anyway
    (a tunnel of the kernel's has no program, and is a server)."""
    if listener.proto == "tcp":
        return listener.port == 5355
    return listener.port in (68, 123, 323, 546, 5353, 5355) or _may_be_a_client(listener, facts)


def _may_be_a_client(listener: Listener, facts: Facts) -> bool:
    """Whether the kernel may have picked this port. A range that was widened downwards makes no clients of well-known servers."""
    given = facts.files.get(_GIVEN)
    last = int((given.content or "").split()[-1]) if given and given.content else 60999
    picked = listener.port >= 32768 and (listener.port <= last or listener.program in _ONLY_CLIENTS)
    return listener.proto == "udp" and picked and bool(listener.program)


def maybe_servers(facts: Facts, allowed: set[tuple[str, int]]) -> list[Listener]:
    """Sockets that may be a client's or a server's: a firewall closes them to whom they did not speak to first, and nobody can tell.

    tailscaled's is one. It speaks to its peers first, so they still meet directly, but for those behind a NAT that changes ports.
    """
    found = {
        (listener.program, listener.port): listener
        for listener in facts.listening
        if _may_be_a_client(listener, facts) and not _is_loopback(listener) and not is_ours(listener, facts)
    }
    return [found[key] for key in sorted(found) if key[0] not in _ONLY_CLIENTS and ("udp", key[1]) not in allowed]


def _socket_ports(facts: Facts) -> set[tuple[str, int]]:
    unit = facts.files.get(f"{paths.SYSTEMD}/{paths.SOCKET}")
    text = (unit.content or "") if unit else ""
    kinds = {"Stream": "tcp", "Datagram": "udp"}
    return {(kinds[kind], int(port)) for kind, port in re.findall(r"^Listen(Stream|Datagram)=(?:\S*:)?(\d+)$", text, re.M)}


def _container(facts: Facts) -> dict[str, object]:
    output = facts.commands.get("container")
    if output is None or output.status != 0:
        return {}
    config = json.loads(output.stdout)
    return config if isinstance(config, dict) else {}


def _container_ports(facts: Facts) -> set[tuple[str, int]]:
    return set(_published(_container(facts).get("PortBindings") or {}))


def _published(bindings: object) -> Iterator[tuple[str, int]]:
    for inside, places in bindings.items() if isinstance(bindings, dict) else ():
        for place in places or ():
            yield inside.partition("/")[2], int(place["HostPort"])


def _in_host_network(facts: Facts) -> bool:
    return _container(facts).get("NetworkMode") == "host"
