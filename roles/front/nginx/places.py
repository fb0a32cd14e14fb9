"""The addresses that our servers listen on beside others. Pure.

Our `listen` lines have no option but `ssl`. nginx takes the options of a socket from one line only,
and one default server: ours would make a neighbour's later line an error.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from engine.facts import Facts
from inventory.model import Host
from roles.front.nginx import neighbours
from roles.readers.nginx_config import Listen
from roles.wiring import LOOPBACK

ANY = "0.0.0.0"  # noqa: S104 - of nginx's own sockets, compared by the agent
_WILDCARDS = ("*", "[::]")


def listens(host: Host, facts: Facts, port: int, name: str, *, tls: bool) -> list[str]:
    """Return the `listen` values of our server in file `name`."""
    return [
        f"{'' if address == '*' else f'{address}:'}{port}{' ssl' if tls else ''}"
        for address in addresses(host, facts, port, name)
    ]


def sockets(host: Host, facts: Facts, port: int, name: str) -> tuple[str, ...]:
    """Return the address:port of the sockets that nginx needs for our server in file `name`.

    Others' are among them: nginx takes none of a configuration's changes while one is missing.
    """
    found = addresses(host, facts, port, name)
    both = ["*"] if has_both(facts, port) else []
    ours = [_socket(address, port) for address in [*both, *found]]
    return tuple(dict.fromkeys([*ours, *sockets_of_others(facts)]))


def sockets_of_others(facts: Facts) -> tuple[str, ...]:
    """Return the address:port of the TCP sockets that nginx needs for others."""
    listens = [listen for server in neighbours.others(facts) for listen in server.listens]
    there = {(canonical(listen.address), listen.port) for listen in listens if not listen.is_udp}
    return tuple(_socket(address, port) for address, port in sorted(there) if address and port)


def _socket(address: str, port: int) -> str:
    return f"{address.replace('*', ANY)}:{port}"


def addresses(host: Host, facts: Facts, port: int, name: str) -> list[str]:
    """Return where our server listens: on every address of the host, and where others listen.

    For an address that a server names, nginx asks no server of the wildcard. Where others have the
    public address and not the wildcard, ours has no wildcard either: nginx would have to be
    restarted for it. It listens on loopback then, where the host checks it.
    """
    ours = facts.files.get(f"{neighbours.folder(facts)}/{name}")
    if ours is not None and neighbours.breakage(facts):  # the other servers are unknown: keep the places
        lines = re.findall(rf"^\s*listen (?:(\S+):)?{port}\b.*;$", ours.content or "", re.M)
        if lines:
            return [address or "*" for address in lines]
    theirs = {canonical(listen.address) for listen in beside(facts, port)} - {""}
    six = {address for address in theirs if address.startswith("[")}
    public_6 = f"[{host.ipv6}]" if str(host.ipv6) in facts.addresses else ""
    public_4 = str(host.ipv4) if str(host.ipv4) in facts.addresses else ""
    found = []
    if not has_both(facts, port):
        found += _of_family("*", theirs - six, public_4, {LOOPBACK})
    if six or facts.has_ipv6:
        found += _of_family("[::]", six, public_6, set())
    return found


def _of_family(wildcard: str, theirs: set[str], public: str, loopback: set[str]) -> list[str]:
    if public in theirs and wildcard not in theirs:
        return sorted(theirs | loopback)
    return [wildcard, *sorted(theirs - {wildcard})]


def beside(facts: Facts, port: int) -> list[Listen]:
    """Return the other web servers' listens on a TCP port."""
    http = [server for server in neighbours.others(facts) if not server.stream]
    return [listen for server in http for listen in server.listens if _is_tcp(listen, port)]


def _is_tcp(listen: Listen, port: int) -> bool:
    return listen.port == port and not listen.is_udp


def has_both(facts: Facts, port: int) -> bool:
    """Whether others' wildcard of IPv6 is IPv4's as well, so that nginx can have no other."""
    return any("ipv6only=off" in listen.options for listen in beside(facts, port))


def canonical(address: str) -> str:
    """Return an address in the one form that we write, or "" for the name of a host.

    nginx refuses two forms of one address in one server.
    """
    if address in _WILDCARDS:
        return address
    try:
        found = ip_address(LOOPBACK if address == "localhost" else address.strip("[]"))
    except ValueError:
        return ""
    if found.is_unspecified:
        return _WILDCARDS[found.version == 6]
    return f"[{found}]" if found.version == 6 else str(found)
