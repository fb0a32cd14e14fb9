"""Our servers out of nginx. nginx itself stays: stopped, unless it serves other sites."""

from __future__ import annotations

from posixpath import dirname

from engine.facts import Ask, Facts
from engine.health import Exec, Health
from engine.resource import Absent, AsFound, Conffile, Directory, Resource, Service, Symlink
from engine.scripts import script
from roles import distributions, paths
from roles.contract import after
from roles.front.nginx import http, neighbours, places
from roles.wiring import Wiring

GONE = f"service:{http.UNIT}/gone"
_PACKAGE = "package:nginx"
_WELCOME = AsFound(subject=neighbours.STOCK_LINK, since=paths.ETC, package=_PACKAGE)
_RUNNING = AsFound(subject=http.UNIT, since=paths.ETC, package=_PACKAGE)

ASK_ABSENT = Ask(files=(neighbours.STOCK_SITE,))


def replaced(wiring: Wiring, facts: Facts) -> list[Resource]:
    """Return nginx without our servers, and off its ports when it serves no other site.

    So is an nginx that never had one of our servers and holds a port that we need: its package, of
    a deploy that failed, has the welcome page on port 80. Else the list is empty then, and when the
    chosen front is nginx as well: that one replaces them.
    """
    if neighbours.PROGRAM in {use.program for use in wiring.uses}:
        return []
    if wiring.front_is_others:  # it may have the ports already
        return _replaced(facts, ())
    wanted = [use.port for use in wiring.uses if use.proto == "tcp" and use.public]
    argv = (facts.python_executable, "-I", "-c", script("free_ports"), *map(str, wanted))
    found = _replaced(facts, (Exec(argv=argv),))
    return found or (_stopped() if _only_holds(wanted, facts) else [])


def _only_holds(ports: list[int], facts: Facts) -> bool:
    """Whether nginx listens on one of these TCP ports, and serves nothing there or elsewhere."""
    there = {one.port for one in facts.listening if one.proto == "tcp" and neighbours.is_nginx(one)}
    return bool(there & {*ports}) and neighbours.nginx_was_there(facts) and neighbours.is_idle(facts)


def _stopped() -> list[Resource]:
    return [Service(unit=http.UNIT, phase="gone", enabled=False, running=False)]


def absent(facts: Facts, *, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return nginx without our servers, after `needs`: for other sites only, or else stopped.

    The package stays, since other programs may use it. Without other sites it gets its own
    nginx.conf and its welcome page back, where they were ours to change, and runs if it ran before
    us. Beside other sites nginx.conf stays as it is now: those sites have been served so.
    """
    gone = _servers_gone(facts, (), [] if neighbours.have_default(facts) else [_WELCOME])
    left = [*http.absent_test_units(), Absent(path=http.ASIDE), *_webroot_gone()]
    packaged = _as_packaged(facts, tuple(r.id for r in gone if r.id == GONE))
    runs = after((one.id for one in packaged), [_RUNNING] if gone else [])
    return after(needs, [*gone, *left, *packaged, *runs])


def _replaced(facts: Facts, healthy_beside_others: tuple[Health, ...]) -> list[Resource]:
    gone = _servers_gone(facts, healthy_beside_others, [])
    return [*gone, *after((GONE,), _webroot_gone())] if gone else []


def _webroot_gone() -> list[Resource]:
    webroot = Absent(path=http.WEBROOT)
    return [webroot, Directory(path=dirname(webroot.path), present=False, needs=(webroot.id,))]


def _servers_gone(
    facts: Facts, healthy_beside_others: tuple[Health, ...], put_back: list[Resource]
) -> list[Resource]:
    """Return nginx without our servers and with what is `put_back`; [] if it has none of ours."""
    ours = (neighbours.HTTP_NAME, neighbours.HTTPS_NAME, neighbours.STREAM_NAME)
    files: list[Resource] = [Absent(path=path) for path in sorted(facts.files) if path.endswith(ours)]
    if not files:
        return []
    if neighbours.is_idle(facts):
        return [*files, *put_back, *_stopped()]
    return [
        *files,
        *put_back,
        Service(
            unit=http.UNIT,
            phase="gone",
            reload_on=tuple(file.id for file in (*files, *put_back)),
            before=("nginx", "-t"),
            listens=places.sockets_of_others(facts),
            healthy=healthy_beside_others,
            watch=neighbours.watches(facts),
        ),
    ]


def _as_packaged(facts: Facts, needs: tuple[str, ...]) -> list[Resource]:
    """Return nginx.conf and the welcome page as the package has them, if nginx.conf is ours."""
    main = facts.files.get(neighbours.MAIN)
    if main is None or not http.is_ours(main):
        return []
    if not neighbours.is_idle(facts) or not neighbours.nginx_was_there(facts):
        return []
    package = distributions.of(facts).family.nginx.conf_package
    conf = Conffile(path=neighbours.MAIN, package=package, needs=needs)
    if neighbours.STOCK_LINK in facts.files or neighbours.STOCK_SITE not in facts.files:
        return [conf]
    return [conf, Symlink(path=neighbours.STOCK_LINK, target=neighbours.STOCK_SITE, needs=needs)]
