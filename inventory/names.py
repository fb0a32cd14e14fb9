"""The site's names: do they lead to the site's addresses? Asks the resolver, and no host."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from inventory.document import Path
from inventory.model import Host, Site
from inventory.problems import Problem
from inventory.site_file import lines_of

IPAddress = IPv4Address | IPv6Address
Resolver = Callable[[str], Collection[IPAddress]]

_AT_ONCE = 16


def resolve(name: str) -> set[IPAddress]:
    """Return the addresses of a name, from the system's resolver. Raises OSError."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return {ip_address(str(info[4][0]).partition("%")[0]) for info in found}


def resolve_problems(
    site: Site, resolver: Resolver = resolve, *, only: Collection[str] | None = None
) -> list[Problem]:
    """Return the names without an address, and the domains with another address than the site's.

    A CDN in front is such an address, and passes no DERP. `only`: names of the hosts to look at;
    all when None. The name in `ssh.address` is left to ssh, because ~/.ssh/config may define it.
    """
    asked: list[tuple[Path, str, Host | None]] = [
        (("hosts", name, "domain"), host.domain, host)
        for name, host in site.hosts.items()
        if only is None or name in only
    ]
    if site.control.url:
        asked.append((("headscale", "url"), urlsplit(site.control.url).hostname or "", None))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(lambda question: _ask(resolver, question[1]), asked))
    found = [
        (path, message)
        for (path, name, host), answer in zip(asked, answers, strict=True)
        for message in _compare(name, answer, host)
    ]
    lines = lines_of(site) if found else {}
    return [Problem(".".join(map(str, path)), lines.get(path), message) for path, message in found]


def _ask(resolver: Resolver, name: str) -> Collection[IPAddress] | str:
    """Return the addresses, or why there are none."""
    try:
        return {ip_address(name)}
    except ValueError:
        pass
    try:
        return resolver(name) or "it has no address"
    except OSError as error:
        return error.strerror or str(error)


def _compare(name: str, answer: Collection[IPAddress] | str, host: Host | None) -> Iterator[str]:
    if isinstance(answer, str):
        yield f"{name} does not resolve: {answer}"
        return
    for family, own in ((IPv4Address, host and host.ipv4), (IPv6Address, host and host.ipv6)):
        found = sorted(str(address) for address in answer if isinstance(address, family))
        if own is not None and found and str(own) not in found:
            yield (
                f"{name} leads to {', '.join(found)}, not to {own}: "
                "correct the DNS record (a CDN in front passes no DERP)"
            )
