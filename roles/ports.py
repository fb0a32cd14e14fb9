"""Find other programs' listeners on a relay host, and those on ports that we need. Pure.

They are found before anything is changed.
"""

from __future__ import annotations

from engine.facts import Ask, Facts, Listener
from inventory.model import Host
from roles.contract import Neighbours
from roles.wiring import Use, Wiring

# The kernel's ephemeral range; a port outside it was chosen on purpose.
_GIVEN = "/proc/sys/net/ipv4/ip_local_port_range"
# Common programs that send requests from high ports, some of them from ports that they choose.
# Cut to 15 characters, as in /proc.
_ONLY_CLIENTS = (
    *("avahi-daemon", "chronyd", "dhclient", "dhcpcd", "dnsmasq", "named", "ntpd", "rpc.statd"),
    *("rpcbind", "rsyslogd", "systemd-network", "systemd-resolve", "systemd-timesyn", "unbound"),
)

ASK = Ask(files=(_GIVEN,))


def taken(host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return a sentence for each port that we need and another program has."""
    return [
        f"port {use.port}/{use.proto} of {host.name}, where {use.purpose}, is taken by {who(listener)}: "
        f"stop that program, or set hosts.{host.name}.{use.key} to another port{_or_stopped(use, listener)}."
        for use in wiring.uses
        for listener in _in_the_way(use, facts, neighbours)[:1]
    ]


def _or_stopped(use: Use, listener: Listener) -> str:
    """Return the third way out, where a service has the port that only orders need."""
    if use.program != "certbot" or not use.public or not listener.unit.endswith(".service"):
        return ""
    return (
        "; or let it be stopped for the seconds of each order: certificate.challenge: standalone, with "
        f"certificate.stop: {listener.unit}"
    )


def strangers(
    wiring: Wiring, facts: Facts, neighbours: Neighbours, allowed: set[tuple[str, int]]
) -> list[Listener]:
    """Return other programs' public listeners that a closed firewall would cut off."""
    found: dict[tuple[str, int], Listener] = {}
    refused = [listener for use in wiring.uses for listener in _in_the_way(use, facts, neighbours)]
    for listener in facts.listening:
        key = (listener.proto, listener.port)
        if not (
            _is_loopback(listener)
            or key in allowed
            or listener in refused
            or neighbours.is_ours(listener)
            or _needs_no_port(listener, facts)
        ):
            found.setdefault(key, listener)
    return [found[key] for key in sorted(found)]


def who(listener: Listener) -> str:
    """Return the listener's program in words."""
    if not listener.program:
        return "something in the kernel or in a namespace of its own"
    return f"{listener.program} (pid {listener.pid}{', ' + listener.unit if listener.unit else ''})"


def _in_the_way(use: Use, facts: Facts, neighbours: Neighbours) -> list[Listener]:
    return [
        listener
        for listener in facts.listening
        if (listener.proto, listener.port) == (use.proto, use.port)
        and not neighbours.is_ours(listener)
        and (use.public or use.sources or _meets_loopback(listener))
        and not (use.stops and listener.unit == use.stops)
        and not neighbours.shares(listener, use)
    ]


def _is_loopback(listener: Listener) -> bool:
    return listener.address.startswith("127.") or listener.address in ("::1", "::ffff:127.0.0.1")


def _meets_loopback(listener: Listener) -> bool:
    return listener.address in ("0.0.0.0", "::", "127.0.0.1")  # noqa: S104 - compared, not bound


def _needs_no_port(listener: Listener, facts: Facts) -> bool:
    """Whether a firewall may close this listener's port without harm.

    Discovery on the link is of no use to the internet. A client's socket gets the answers to its
    requests through any firewall. A tunnel of the kernel's has no program, and is a server.
    """
    if listener.proto == "tcp":
        return listener.port == 5355
    return listener.port in (68, 123, 323, 546, 5353, 5355) or _may_be_a_client(listener, facts)


def _may_be_a_client(listener: Listener, facts: Facts) -> bool:
    """Whether the kernel may have picked this port.

    Ports below 32768 count as servers' even where the range was widened to include them.
    """
    given = facts.files.get(_GIVEN)
    last = int((given.content or "").split()[-1]) if given and given.content else 60999
    picked = listener.port >= 32768 and (listener.port <= last or listener.program in _ONLY_CLIENTS)
    return listener.proto == "udp" and picked and bool(listener.program)


def maybe_servers(
    facts: Facts, neighbours: Neighbours, allowed: set[tuple[str, int]]
) -> list[Listener]:
    """Return the sockets that may be a client's or a server's.

    A firewall closes them to every peer to which they did not send first. tailscaled's is one. It
    sends to its peers first, so they still connect directly, except those behind a NAT that changes
    ports.
    """
    found = {
        (listener.program, listener.port): listener
        for listener in facts.listening
        if _may_be_a_client(listener, facts)
        and not _is_loopback(listener)
        and not neighbours.is_ours(listener)
    }
    return [
        found[key] for key in sorted(found) if key[0] not in _ONLY_CLIENTS and ("udp", key[1]) not in allowed
    ]
