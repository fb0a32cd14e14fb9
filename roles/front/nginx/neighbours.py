"""The web sites that share a host's nginx with the relay: who they are, and how our servers listen beside them. Pure."""

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatch

from engine.facts import Ask, Facts
from engine.resource import Watch
from inventory.model import Host
from roles.readers.nginx_config import Listen, NginxConfigError, Server, included_patterns, servers

# The last in its folder: a server of ours in front would become the default for names that nobody serves.
HTTP_NAME, HTTPS_NAME = "zz-derpfleet-http.conf", "zz-derpfleet-https.conf"
MAIN = "/etc/nginx/nginx.conf"
STOCK_LINK = "/etc/nginx/sites-enabled/default"
STOCK_SITE = "/etc/nginx/sites-available/default"
FOLDERS = ("/etc/nginx/sites-enabled", "/etc/nginx/conf.d")
_PACKAGES = "/var/lib/dpkg/info/nginx*.list"
# Words of a `return` that mean the same in another server.
_SAME_ANYWHERE = re.compile(r"([\w:/.-]|\$(host|http_host|request_uri|scheme)\b)+")

ASK = Ask(
    files=(MAIN, STOCK_LINK, _PACKAGES, *(f"{folder}/zz-derpfleet-*.conf" for folder in FOLDERS)),
    commands={
        "nginx": ("nginx", "-T"),
        "nginx_conffiles": ("dpkg-query", "--show", "--showformat", "${Conffiles}\\n", "nginx-common"),
    },
)


def nginx_was_there(facts: Facts) -> bool:
    """Whether the host had nginx when the run began."""
    return "nginx" in facts.tools


def dump(facts: Facts) -> str:
    """What `nginx -T` printed, or "": also when it is nothing that we can read, see `unreadable`."""
    return "" if unreadable(facts) else _printed(facts)


def _printed(facts: Facts) -> str:
    output = facts.commands.get("nginx")
    return output.stdout if output and output.status == 0 else ""


def unreadable(facts: Facts) -> str:
    """Where and why we cannot read a configuration that nginx itself takes, or ""."""
    try:
        servers(_printed(facts))
    except NginxConfigError as error:
        return str(error)
    return ""


def foreign(facts: Facts) -> str:
    """The path of an nginx that no package of the host brought, or "". Debian's would be installed over it."""
    path = facts.tools.get("nginx", "")
    lists = [fact.content or "" for name, fact in facts.files.items() if fnmatch(name, _PACKAGES)]
    return "" if path in ("/usr/sbin/nginx", "/sbin/nginx") and any("/usr/sbin/nginx" in text.split() for text in lists) else path


def folder(facts: Facts) -> str:
    """The folder that our servers are written to: the last one that the http block includes, so that we stand last."""
    ours = [name for name in FOLDERS if f"{name}/{HTTP_NAME}" in facts.files]
    return (ours[:1] or included(facts) or FOLDERS[:1])[-1]


def included(facts: Facts) -> list[str]:
    """Which of the folders the http block includes, in its order."""
    return [name for pattern in included_patterns(dump(facts)) for name in FOLDERS if pattern in (f"{name}/*", f"{name}/*.conf")]


def breakage(facts: Facts) -> str:
    """What `nginx -t` says is wrong with the configuration that is there, or ""."""
    output = facts.commands.get("nginx")
    if output is None or output.status in (0, 127):
        return ""
    lines = output.stderr.splitlines()
    return " ".join([line for line in lines if "[emerg]" in line] or lines[-1:]) or f"nginx -T ended with status {output.status}"


def is_broken_by_us(facts: Facts) -> bool:
    """Whether what is wrong is in a file of ours, or in one that only ours names, such as a certificate that was removed."""
    ours = {path: fact.content or "" for path, fact in facts.files.items() if path.endswith((HTTP_NAME, HTTPS_NAME))}
    named = re.findall(r'"(/[^"]+)"', breakage(facts))
    return any(path in breakage(facts) or any(name in text for name in named) for path, text in ours.items())


def is_as_packaged(facts: Facts, path: str, conffile: str = "") -> bool:
    """Whether the file at `path` is what the package brought as `conffile` (default: that path)."""
    fact, packaged = facts.files.get(path), facts.commands.get("nginx_conffiles")
    if fact is None or fact.content is None or packaged is None:
        return False
    digest = hashlib.md5(fact.content.encode(), usedforsecurity=False).hexdigest()
    return bool(re.search(rf"^\s*{re.escape(conffile or path)} {digest}\b", packaged.stdout, re.M))


def others(facts: Facts) -> tuple[Server, ...]:
    """The servers that are neither ours nor the distribution's placeholder, http's and stream's."""
    ours = {f"{name}/{file}" for name in FOLDERS for file in (HTTP_NAME, HTTPS_NAME)}
    placeholder = STOCK_LINK if is_placeholder(facts) else ""
    return tuple(server for server in servers(dump(facts)) if server.file not in ours | {placeholder})


def is_placeholder(facts: Facts) -> bool:
    """Whether Debian's welcome page is on, as it came."""
    return is_as_packaged(facts, STOCK_LINK, STOCK_SITE)


def watches(facts: Facts) -> tuple[Watch, ...]:
    """One for each name and port that others serve, and for what they answer by address: they must answer after the change as before."""
    found: dict[tuple[str, str, int], Watch] = {}
    there, theirs = _bound(facts), others(facts)
    defaults = _defaults(facts)
    for server, listen in there:
        if server not in theirs:
            continue
        scheme = "https" if "ssl" in listen.options else "http"
        address = listen.address.replace("*", "127.0.0.1").replace("[::]", "[::1]")
        names = [name for name in map(_asked, server.names) if name]
        # Who has no name that one can ask for is reached only as the default of an address.
        if not names and defaults[listen.address, listen.port] == server:
            names = [address]
        for name in names:
            watch = Watch(url=f"{scheme}://{name}:{listen.port}/", connect=f"{address}:{listen.port}")
            found.setdefault((scheme, name, listen.port), watch)
    return tuple(found[key] for key in sorted(found))


def _bound(facts: Facts) -> list[tuple[Server, Listen]]:
    """Every server of http, ours and the placeholder as well, with each place that it listens at."""
    return [(server, listen) for server in servers(dump(facts)) if not server.stream for listen in server.listens if listen.port]


def _defaults(facts: Facts) -> dict[tuple[str, int], Server]:
    """(address, port) -> who answers there for names that nobody has: who claims that, else the first."""
    there = _bound(facts)
    first = {(listen.address, listen.port): server for server, listen in reversed(there)}
    return first | {(listen.address, listen.port): server for server, listen in there if _claims_default(listen)}


def by_address(host: Host, facts: Facts) -> tuple[tuple[str, ...], str]:
    """The addresses that our http server answers to as to names, and what it returns for all there that is not ours ("": as by name).

    The captive-portal check asks by address, and nginx looks for what was asked among the names before it turns to the default. So
    somebody's default site is asked by address no more: who comes so is answered with the `return` that is all of that site, or sent
    to its name. Not passed on to it: from loopback it might show what it hides from strangers. A site with neither is reached by
    address only, and keeps that. The relay's check has to be handed on by it then, and the proof says so.
    """
    ours = facts.files.get(f"{folder(facts)}/{HTTP_NAME}")
    if ours is not None and breakage(facts):  # as in `listens`
        names, said = (re.search(pattern, ours.content or "", re.M) for pattern in (r"^\s*server_name \S+(.*);$", r"!= .*\s+return (.*);$"))
        return tuple(names[1].split()) if names else (), said[1] if said else ""
    theirs, defaults = others(facts), _defaults(facts).items()
    instead = [_answer_by_address(server, port) for (_, port), server in defaults if port == host.ports.http and server in theirs]
    addresses = [str(host.ipv4 or ""), f"[{host.ipv6}]" if host.ipv6 else ""]
    taken = {host.domain, "", *(name for server in theirs for name in server.names)}
    wanted = tuple(address for address in addresses if address not in taken)
    return (wanted, next(iter(instead), "")) if wanted and all(instead) else ((), "")


def _answer_by_address(server: Server, port: int) -> str:
    """The arguments of a `return` for who asks a default site by address, or ""."""
    if server.returns and all(_SAME_ANYWHERE.fullmatch(word) for word in server.returns):
        return " ".join(server.returns)
    names = [name for name in map(_asked, server.names) if name in server.names and re.search(r"\.[a-z]", name)]
    return f"302 http://{names[0]}{f':{port}' if port != 80 else ''}$request_uri" if names else ""


def _asked(name: str) -> str:
    """A name that nginx gives to the server with this `server_name`, or "" when none can be told (a catch-all, a regular expression)."""
    name = re.sub(r"^\*(?=\.)", "derpfleet", name)
    name = re.sub(r"(?<=\.)\*$", "example", name).removeprefix(".")
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", name) else ""


def public_ports(facts: Facts) -> set[tuple[str, int]]:
    """(protocol, port) of what others serve beyond loopback."""
    listens = [listen for server in others(facts) for listen in server.listens if listen.port]
    beyond = [listen for listen in listens if not listen.address.startswith(("127.", "localhost", "[::1]"))]
    return {("udp" if "udp" in listen.options else "tcp", listen.port) for listen in beyond}


def listens(facts: Facts, port: int, name: str, *, tls: bool) -> list[str]:
    """The `listen` values of our server in file `name`: beside others exactly where they listen, else everywhere and as the default.

    A default that we hold already, or that the placeholder held, is ours until somebody else claims it.
    """
    ours = facts.files.get(f"{folder(facts)}/{name}")
    if ours is not None and breakage(facts):  # nobody can say who else is there: stay where we are
        return re.findall(r"^\s*listen (.*);$", ours.content or "", re.M)
    held = (ours is not None and "default_server" in (ours.content or "")) or (is_placeholder(facts) and port == 80)
    found = []
    there = [listen for server in others(facts) if not server.stream for listen in server.listens if listen.port == port]
    for wildcard, ipv6 in (("", False), ("[::]:", True)):
        beside = [listen for listen in there if listen.is_ipv6 == ipv6]
        covered = not ipv6 and any("ipv6only=off" in listen.options for listen in there)
        if covered or (ipv6 and not beside and not facts.has_ipv6):
            continue
        default = not beside or (held and not any(_claims_default(listen) for listen in beside))
        tail = (" ssl" if tls else "") + (" default_server" if default else "")
        # Only one server of an address may set socket options.
        tail += " so_keepalive=60s:15s:4" if default and tls else ""
        places = sorted({"" if listen.address == "*" else f"{listen.address}:" for listen in beside}) or [wildcard]
        found += [f"{place}{port}{tail}" for place in places]
    return found


def _claims_default(listen: Listen) -> bool:
    return bool({"default_server", "default"} & set(listen.options))
