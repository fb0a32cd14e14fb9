"""Lines of other web servers beside which ours would not work. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from engine.facts import Facts
from inventory.choices import front_of
from inventory.model import Host
from roles.front.nginx import neighbours, places
from roles.readers.nginx_config import Listen, Server, servers_after

# With these nginx opens a socket for the address alone, even where another line has the wildcard.
_OWN_SOCKET = (
    *("backlog", "bind", "deferred", "fastopen", "ipv6only", "rcvbuf", "reuseport", "setfib"),
    *("sndbuf", "so_keepalive"),
)


def conflicts(host: Host, facts: Facts) -> list[str]:
    """Return a sentence for each line that has to be changed first, with its place."""
    return [
        *_name(host, facts),
        *_listens(host, facts),
        *_overtaken(host, facts),
        *_by_address(host, facts),
    ]


def _name(host: Host, facts: Facts) -> Iterator[str]:
    """Yield where our name has a server. nginx gives requests to the first one, and only warns."""
    ports = (host.ports.http, host.ports.https)
    ours = {form for name in (host.domain, *host.more_names) for form in (name, f".{name}")}
    for server in _web_servers(facts):
        at = {listen.port for listen in server.listens if not listen.is_udp and listen.port in ports}
        names = {name.replace("$hostname", facts.hostname).lower() for name in server.names}
        if at and (taken := ours & names):
            yield (
                f"{min(taken).strip('.')} already has a server in nginx on {host.name}, for port "
                f"{' and '.join(map(str, sorted(at)))} ({server.where}): take the name, or the server, out "
                "of that file. derpfleet writes servers of its own for that name."
            )


def _listens(host: Host, facts: Facts) -> Iterator[str]:
    ends_tls = front_of(host).terminates_tls  # else our https port is no web server's
    for port, tls in ((host.ports.http, False), (host.ports.https, True))[: 2 if ends_tls else 1]:
        for server, listen in _there(facts, port):
            if why := _why_not(host, facts, server, listen, tls=tls):
                said = " ".join((f"{listen.address}:{port}", *listen.options))
                yield (
                    f"nginx on {host.name} listens on {said} for another site ({listen.where}), "
                    f"{why}; or set hosts.{host.name}.ports to others."
                )


def _overtaken(host: Host, facts: Facts) -> Iterator[str]:
    """Yield which site would no longer answer for unknown names, as ours would be read first."""
    ours = f"{neighbours.folder(facts)}/{neighbours.HTTP_NAME}"
    if ours in facts.files:
        return
    later = set(servers_after(neighbours.dump(facts), ours)) & set(_web_servers(facts))
    ports = (host.ports.http, host.ports.https)
    for (address, port), server in neighbours.defaults(facts).items():
        at = [each for each in server.listens if (each.address, each.port) == (address, port)]
        if port in ports and server in later and not any(map(neighbours.claims_default, at)):
            yield (
                f"nginx on {host.name} answers for unknown names on {address}:{port} with the site "
                "that it reads first, and would read derpfleet's before it: add default_server to its listen "
                f"({at[0].where})."
            )


def _by_address(host: Host, facts: Facts) -> Iterator[str]:
    """Yield where a relay that is known by its address has another site beside it.

    A client says no name for an address, and nginx shows it the certificate of the default server.
    """
    if not host.is_address or not front_of(host).terminates_tls:
        return
    reached = {"*", host.domain, *(("[::]", f"[{host.ipv6}]") if host.ipv6 else ())}
    theirs = [listen for _, listen in _there(facts, host.ports.https)]
    if at := [listen.where for listen in theirs if places.canonical(listen.address) in reached]:
        yield (
            f"Clients of {host.domain} say no name in TLS, as it is an address, and would get a certificate "
            f"of another site in nginx on {host.name} ({', '.join(at)}): set hosts.{host.name}.domain to a "
            f"host name, hosts.{host.name}.front to nginx-stream, or hosts.{host.name}.ports.https to a port "
            "of its own."
        )


def _there(facts: Facts, port: int) -> Iterator[tuple[Server, Listen]]:
    for server in _web_servers(facts):
        for listen in server.listens:
            if listen.port == port and not listen.is_udp:
                yield server, listen


def _why_not(host: Host, facts: Facts, server: Server, listen: Listen, *, tls: bool) -> str:
    """Return why our server cannot have the same port, and what to change, or ""."""
    has_tls = server.tls or any(
        "ssl" in other.options
        for _, other in _there(facts, listen.port)
        if places.canonical(other.address) == places.canonical(listen.address)
    )
    if "proxy_protocol" in listen.options:
        return (
            "and every server there then expects the PROXY protocol, which the relay's clients do not "
            "speak: give that site another address or port"
        )
    if has_tls != tls:
        return (
            f"{'without' if tls else 'with'} TLS, and the relay needs port {listen.port} "
            f"{'with' if tls else 'without'} it: give that site another port"
        )
    if not places.canonical(listen.address):
        return "by the name of a host: write the address instead"
    return _own_socket(host, facts, listen)


def _own_socket(host: Host, facts: Facts, listen: Listen) -> str:
    name = neighbours.HTTP_NAME if listen.port == host.ports.http else neighbours.HTTPS_NAME
    address = places.canonical(listen.address)
    wildcard = "[::]" if address.startswith("[") else "*"
    others = {places.canonical(other.address) for _, other in _there(facts, listen.port)}
    ours = places.addresses(host, facts, listen.port, name)
    has = [option for option in listen.options if option.partition("=")[0] in _OWN_SOCKET]
    if address == wildcard or wildcard in others or wildcard not in ours or not has:
        return ""
    return (
        f"with a socket of its own ({' '.join(has)}), beside which nginx cannot have one for all addresses: "
        "take that option away"
    )


def _web_servers(facts: Facts) -> list[Server]:
    return [server for server in neighbours.others(facts) if not server.stream]
