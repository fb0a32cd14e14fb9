"""The web sites that share a host's nginx with the relay, and how our servers listen beside them.

Pure.
"""

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatch
from posixpath import dirname

from engine.facts import Ask, Facts, Listener
from engine.health import Watch
from inventory.model import Host
from roles import distributions
from roles.readers.nginx_config import (
    Listen,
    NginxConfigError,
    Server,
    included_patterns,
    matches,
    parse_dump,
    servers,
)
from roles.wiring import Use

# The last in its folder: one of our servers in front of others would become the default for names
# that no server has.
HTTP_NAME, HTTPS_NAME = "zz-derpfleet-http.conf", "zz-derpfleet-https.conf"
STREAM_NAME = "zz-derpfleet-stream.conf"  # a block of the main context, after the file that loads its module
PROGRAM, _UNIT = "nginx", "nginx.service"  # in `Use.program`, and on the host
MAIN, PATH = "/etc/nginx/nginx.conf", "/usr/sbin/nginx"
STOCK_LINK = "/etc/nginx/sites-enabled/default"
STOCK_SITE = "/etc/nginx/sites-available/default"
WELCOME_PORT = 80  # of the stock site
ORG_SITE = "/etc/nginx/conf.d/default.conf"  # of nginx.org's package
FOLDERS = ("/etc/nginx/sites-enabled", "/etc/nginx/conf.d")
_MODULES = ("/etc/nginx/modules-enabled", "/usr/share/nginx/modules")  # Debian's, Enterprise Linux's
_PACKAGES = "/var/lib/dpkg/info/nginx*.list"
# Words of a `return` that mean the same in another server.
_SAME_ANYWHERE = re.compile(r"([\w:/.-]|\$(host|http_host|request_uri|scheme)\b)+")

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")

_CONFFILES = ("dpkg-query", "--show", "--showformat", "${Conffiles}\\n")
_FILES = ("rpm", "--query", "--queryformat", "[%{FILENAMES} %{FILEDIGESTS}\\n]", "--file")

ASK = Ask(
    files=(
        *(MAIN, STOCK_LINK, ORG_SITE, _PACKAGES),
        *(f"{folder}/zz-derpfleet-*.conf" for folder in (*FOLDERS, *_MODULES)),
    ),
    tools=("nginx",),
    commands={
        "nginx": ("nginx", "-T"),
        "nginx_listens": ("grep", "-RHnE", "^[^#]*\\blisten[[:space:]]", *FOLDERS, MAIN),
        "nginx_conffiles": (*_CONFFILES, "nginx-common"),
        "nginx_org_conffiles": (*_CONFFILES, "nginx"),
        "ipv6": ("test", "-e", "/proc/net/if_inet6"),
        "nginx_files": (*_FILES, PATH, MAIN),
    },
)


def shares(listener: Listener, use: Use, facts: Facts) -> bool:
    """Whether the listener is nginx, which serves the use's port beside us or leaves it.

    Without an nginx command its sites cannot be read, so no port is shared with it. A welcome page
    beside other sites stays on its port, since nginx runs on for them.
    """
    if not is_nginx(listener) or not nginx_was_there(facts):
        return False
    used = {listen.port for server in others(facts) for listen in server.listens}
    leaves = is_idle(facts) or (has_ours(facts) and not unreadable(facts))
    return use.program == PROGRAM or (use.port not in used and leaves)


def has_ours(facts: Facts) -> bool:
    """Whether nginx has one of our servers."""
    return any(path.endswith((HTTP_NAME, HTTPS_NAME, STREAM_NAME)) for path in facts.files)


def is_idle(facts: Facts) -> bool:
    """Whether nginx serves no other site. One that is broken, or that we cannot read, may do so."""
    return not others(facts) and not breakage(facts) and not unreadable(facts)


def is_nginx(listener: Listener) -> bool:
    """Whether the socket is of the host's nginx."""
    return listener.unit == _UNIT


def other_sites(facts: Facts) -> list[str]:
    """Return the URLs of the other sites."""
    return [watch.url for watch in watches(facts)]


def nginx_was_there(facts: Facts) -> bool:
    """Whether the host had nginx when the run began."""
    return "nginx" in facts.tools


def dump(facts: Facts) -> str:
    """Return what `nginx -T` printed, or "", also when it is `unreadable`."""
    return "" if unreadable(facts) else _printed(facts)


def _printed(facts: Facts) -> str:
    output = facts.commands.get("nginx")
    return output.stdout if output and output.status == 0 else ""


def unreadable(facts: Facts) -> str:
    """Return where and why we cannot read a configuration that nginx itself accepts, or ""."""
    try:
        servers(_printed(facts))
    except NginxConfigError as error:
        return str(error)
    return ""


def worker_user(facts: Facts) -> str:
    """Return the user that the configuration gives to nginx's workers, or "".

    It is in nginx.conf also while nginx does not take the rest.
    """
    main = facts.files.get(MAIN)
    text = dump(facts) or f"# configuration file {MAIN}:\n{(main and main.content) or ''}"
    try:
        named = [top.args[0] for top in parse_dump(text) if top.name == "user" and top.args]
    except NginxConfigError:
        return ""
    return next((name for name in named if _USER.fullmatch(name)), "")


def foreign(facts: Facts) -> str:
    """Return the path of an nginx that no package of the host brought, or "".

    The distribution's would be installed over it.
    """
    path = facts.tools.get("nginx", "")
    lists = [fact.content or "" for name, fact in facts.files.items() if fnmatch(name, _PACKAGES)]
    is_packaged = any(PATH in text.split() for text in [*lists, _files(facts)])
    return "" if path in (PATH, "/sbin/nginx") and is_packaged else path


def _files(facts: Facts) -> str:
    """Return the path and digest of each file of the RPMs that brought nginx and nginx.conf."""
    printed = facts.commands.get("nginx_files")
    return printed.stdout if printed else ""


def folder(facts: Facts) -> str:
    """Return the folder that our servers are written to.

    It is the last one that the http block includes, so that our servers are the last.
    """
    ours = [name for name in FOLDERS if f"{name}/{HTTP_NAME}" in facts.files][:1]
    return (ours or included(facts) or [distributions.of(facts).family.nginx.folder])[-1]


def stream_file(facts: Facts) -> str:
    """Return where our stream block is written: beside the files that load nginx's modules."""
    return f"{dirname(distributions.of(facts).family.nginx.modules)}/{STREAM_NAME}"


def included(facts: Facts) -> list[str]:
    """Return those of the folders that the http block includes, in its order."""
    return [
        name
        for pattern in included_patterns(dump(facts))
        for name in sorted(FOLDERS)
        if all(matches(f"{name}/{file}", pattern) for file in (HTTP_NAME, HTTPS_NAME))
    ]


def breakage(facts: Facts) -> str:
    """Return the error of `nginx -t` in the present configuration, or ""."""
    output = facts.commands.get("nginx")
    if output is None or output.status in (0, 127):
        return ""
    lines = output.stderr.splitlines()
    found = [line for line in lines if "[emerg]" in line] or lines[-1:]
    return " ".join(found) or f"nginx -T ended with status {output.status}"


def is_as_packaged(facts: Facts, path: str, conffile: str = "") -> bool:
    """Whether the file at `path` is the package's file `conffile` (default: `path`)."""
    return _is_conffile(facts, path, conffile or path, "nginx_conffiles")


def _is_conffile(facts: Facts, path: str, conffile: str, listed: str) -> bool:
    fact, packaged = facts.files.get(path), facts.commands.get(listed)
    if fact is None or fact.content is None:
        return False
    text = (packaged.stdout if packaged else "") + _files(facts)
    digest = hashlib.md5(fact.content.encode(), usedforsecurity=False).hexdigest()
    return any(f"{conffile} {known}" in text for known in (digest, fact.sha256) if known)


def others(facts: Facts) -> tuple[Server, ...]:
    """Return the servers of http and stream that are neither ours nor the placeholder."""
    ours = {f"{name}/{file}" for name in FOLDERS for file in (HTTP_NAME, HTTPS_NAME)}
    placeholders = {STOCK_LINK} if is_placeholder(facts) else set()
    # nginx.org's stays where it is: our name and addresses come before its default.
    # The welcome page of Enterprise Linux is in nginx.conf itself.
    placeholders |= {MAIN} if is_as_packaged(facts, MAIN) else set()
    placeholders |= {ORG_SITE} if _is_conffile(facts, ORG_SITE, ORG_SITE, "nginx_org_conffiles") else set()
    known = ours | placeholders | {stream_file(facts)}
    return tuple(server for server in servers(dump(facts)) if server.file not in known)


def is_placeholder(facts: Facts) -> bool:
    """Whether Debian's welcome page is on, unchanged."""
    return is_as_packaged(facts, STOCK_LINK, STOCK_SITE)


def is_unused(facts: Facts) -> bool:
    """Whether the host has no nginx, or one that serves nothing and could not be started.

    That is so after an installation on a kernel without IPv6: Debian's welcome page, alone, listens
    on [::]:80.
    """
    output = facts.commands.get("nginx_listens")
    lines = output.stdout.splitlines() if output else []
    return not nginx_was_there(facts) or (
        "[::]:80 failed (97: " in breakage(facts)
        and is_placeholder(facts)
        and all(line.startswith(f"{STOCK_LINK}:") for line in lines)
    )


def has_ipv6(facts: Facts) -> bool:
    """Whether the host's kernel has IPv6. It may be without an address."""
    said = facts.commands.get("ipv6")
    return said is None or said.status == 0


def watches(facts: Facts) -> tuple[Watch, ...]:
    """Return a watch for each name and port of the other sites, and for their answer by address.

    They must answer after the change as before.
    """
    found: dict[tuple[str, str, int], Watch] = {}
    there, theirs = _bound(facts), others(facts)
    by_place = defaults(facts)
    for server, listen in there:
        if server not in theirs:
            continue
        scheme = "https" if "ssl" in listen.options else "http"
        address = listen.address.replace("*", "127.0.0.1").replace("[::]", "[::1]")
        names = [name for name in map(_asked, server.names) if name]
        # A server without a name that can be asked for is reached only as the default of an
        # address.
        if not names and by_place[listen.address, listen.port] == server:
            names = [address]
        for name in names:
            watch = Watch(
                url=f"{scheme}://{name}:{listen.port}/",
                connect=f"{address}:{listen.port}",
                proxy_header="proxy_protocol" in listen.options,
            )
            found.setdefault((scheme, name, listen.port), watch)
    return tuple(found[key] for key in sorted(found))


def _bound(facts: Facts) -> list[tuple[Server, Listen]]:
    """Return every server of http, ours and the placeholder as well, with each of its places."""
    http = [server for server in servers(dump(facts)) if not server.stream]
    return [
        (server, listen)
        for server in http
        for listen in server.listens
        if listen.port and not listen.is_udp
    ]


def defaults(facts: Facts) -> dict[tuple[str, int], Server]:
    """Return the server by (address, port) that answers there for unknown names.

    It is the one that claims to be the default, else the first.
    """
    there = _bound(facts)
    first = {(listen.address, listen.port): server for server, listen in reversed(there)}
    claiming = [(server, listen) for server, listen in there if claims_default(listen)]
    return first | {(listen.address, listen.port): server for server, listen in claiming}


def by_address(host: Host, facts: Facts) -> tuple[tuple[str, ...], str]:
    """Return the addresses to list in our `server_name`, and the `return` for other requests there.

    "" means: treat those requests as requests to our name.

    The captive-portal check asks by address, and nginx looks among the names before it turns to the
    default. So a default site of another program is no longer asked by address. A request by
    address gets the answer that is all of that site, or is sent to its name. It is not passed on to
    the site: from loopback the site might show what it hides from strangers. A site with neither is
    reached by address only, and keeps that. It has to hand on the relay's check then, and the proof
    says so. Requests by address that were all ours stay so beside a site that came later, unless it
    claims to be the default.
    """
    ours = facts.files.get(f"{folder(facts)}/{HTTP_NAME}")
    names, said = (
        re.search(pattern, (ours and ours.content) or "", re.M)
        for pattern in (r"^\s*server_name \S+(.*);$", r"!= .*\s+return (.*);$")
    )
    before = (tuple(names[1].split()) if names else (), said[1] if said else "")
    if ours is not None and breakage(facts):  # as in `places.listens`
        return before
    theirs, by_place = others(facts), defaults(facts).items()
    replaced = [server for (_, port), server in by_place if port == host.ports.http and server in theirs]
    if before[0] and not before[1] and not _claimed(theirs, host.ports.http):
        replaced = []
    instead = [_answer_by_address(server, host.ports.http) for server in replaced]
    addresses = [str(host.ipv4 or ""), f"[{host.ipv6}]" if host.ipv6 else ""]
    taken = {host.domain, "", *(name for server in theirs for name in server.names)}
    wanted = tuple(address for address in addresses if address not in taken)
    return (wanted, next(iter(instead), "")) if wanted and all(instead) else ((), "")


def _answer_by_address(server: Server, port: int) -> str:
    """Return the arguments of a `return` for requests to a default site by address, or ""."""
    if server.returns and all(_SAME_ANYWHERE.fullmatch(word) for word in server.returns):
        return " ".join(server.returns)
    asked = [name for name in map(_asked, server.names) if name in server.names]
    names = [name for name in asked if re.search(r"\.[a-z]", name)]
    return f"302 http://{names[0]}{f':{port}' if port != 80 else ''}$request_uri" if names else ""


def _asked(name: str) -> str:
    """Return a name that nginx gives to the server with this `server_name`.

    "" when none is known: for a catch-all or a regular expression.
    """
    name = re.sub(r"^\*(?=\.)", "derpfleet", name)
    name = re.sub(r"(?<=\.)\*$", "example", name).removeprefix(".")
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", name) else ""


def open_ports(facts: Facts) -> set[tuple[str, int]]:
    """Return (protocol, port) of the other sites beyond loopback."""
    loopback = ("127.", "localhost", "[::1]")
    listens = [listen for server in others(facts) for listen in server.listens if listen.port]
    beyond = [listen for listen in listens if not listen.address.startswith(loopback)]
    return {("udp" if listen.is_udp else "tcp", listen.port) for listen in beyond}


def _claimed(theirs: tuple[Server, ...], port: int) -> bool:
    listens = [listen for server in theirs for listen in server.listens if listen.port == port]
    return any(claims_default(listen) for listen in listens)


def have_default(facts: Facts) -> bool:
    """Whether another site claims to be the default of the welcome page's port."""
    return _claimed(others(facts), WELCOME_PORT)


def claims_default(listen: Listen) -> bool:
    """Whether it says itself that its server answers there for unknown names."""
    return bool({"default_server", "default"} & set(listen.options))
