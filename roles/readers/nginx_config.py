"""Read what `nginx -T` prints: the servers of a configuration, with the file of each. Pure.

It knows only the grammar that this needs: words, quotes, comments, blocks, includes. Lua blocks are
skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from posixpath import dirname, join, normpath

_SECTION = re.compile(r"^# configuration file (/.+):$", re.M)
_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|"(?P<double>(?:\\.|[^"\\]+)*+)"|'(?P<single>(?:\\.|[^'\\]+)*+)'"""
    r"""|(?P<mark>[{};])|(?P<word>(?:\\.|\$\{[^{}]*\}|[^\s{};\\])+)""",
    re.S,
)

# The parts of Lua code that matter for counting braces. None counts in a comment or in a string,
# short or [==[ long ]==]. One without an end takes all of the text: to try again at each beginning
# would take a time that grows with the square of the length.
_LUA = re.compile(
    r"""(--)?\[(?P<level>=*)\[.*?(\](?P=level)\]|\Z)|--[^\n]*|"""
    r""""(?:\\.|[^"\\]+)*+("|\\?\Z)|'(?:\\.|[^'\\]+)*+('|\\?\Z)|(?P<brace>[{}])""",
    re.S,
)

# Bounds of what a host may have us read. nginx itself has none of them.
_MAX_SIZE = 2_000_000  # characters
_MAX_DEPTH = 100  # blocks and includes within each other
_MAX_INCLUDES = 20  # within each other
_MAX_WORK = 60_000  # directives with their includes in place; ten comparisons with a pattern are one
_MAX_RANGE = 1_000  # ports of one `listen`
_PORT = re.compile(r"[0-9]{1,5}")
_PORTS = re.compile(r"(?:(?P<address>.+):)?(?P<first>[0-9]{1,5})-(?P<last>[0-9]{1,5})")


class NginxConfigError(ValueError):
    """The text is no nginx configuration, or we cannot read it: file, line, and the text there."""


@dataclass(frozen=True, slots=True)
class Directive:
    """`name args;` or `name args { block }`, and where it begins."""

    name: str
    args: tuple[str, ...]
    file: str
    block: tuple[Directive, ...] = ()
    line: int = field(default=0, compare=False)

    @property
    def where(self) -> str:
        """Return file:line."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Listen:
    """One `listen`: address "*", "[::]", an address as written, or "unix:…" (then port 0).

    `where`: its file:line.
    """

    address: str
    port: int
    options: tuple[str, ...] = ()
    where: str = field(default="", compare=False)

    @property
    def is_udp(self) -> bool:
        """Whether it is no TCP port: HTTP/3, or a stream of datagrams."""
        return "quic" in self.options or "udp" in self.options


@dataclass(frozen=True)
class Server:
    """One `server` block of http, or with `stream` of stream.

    `returns`: the arguments of its own `return`, which comes before all locations. `tls`: it has
    `ssl on`, the old way to say so. `where`: the file:line of its `server_name`, else of itself.
    """

    file: str
    names: tuple[str, ...]
    listens: tuple[Listen, ...]
    stream: bool = False
    returns: tuple[str, ...] = ()
    where: str = field(default="", compare=False)
    tls: bool = False


@lru_cache(maxsize=1)
def servers(dump: str) -> tuple[Server, ...]:
    """Return every server block in nginx's own order. Raises NginxConfigError."""
    found = []
    for top in parse_dump(dump):
        if top.name in ("http", "stream"):
            found += [_server(inner, top.name == "stream") for inner in top.block if inner.name == "server"]
    return tuple(found)


def included_patterns(dump: str) -> tuple[str, ...]:
    """Return the absolute patterns that the http block includes, in order.

    Raises NginxConfigError.
    """
    main = next(iter(_sections(dump)), "")
    http = [top.block for top in parse_dump(dump) if top.name == "http"]
    return tuple(
        join(dirname(main), inner.args[0])
        for block in http
        for inner in block
        if inner.name == "include" and inner.args
    )


def servers_after(dump: str, path: str) -> tuple[Server, ...]:
    """Return the servers of http that nginx would read after a file at `path`, once it is there.

    Raises NginxConfigError.
    """
    main = next(iter(_sections(dump)), "")
    found: list[Server] = []
    for http in (top.block for top in parse_dump(dump) if top.name == "http"):
        pattern, by, is_after = "", "", False
        for inner in http:
            if inner.name == "include" and inner.args and matches(path, join(dirname(main), inner.args[0])):
                pattern, by, is_after = join(dirname(main), inner.args[0]), inner.file, False
            elif pattern and matches(inner.file, pattern):
                is_after = inner.file > path
            elif inner.file == by:
                is_after = True
            if is_after and inner.name == "server":
                found.append(_server(inner, False))
    return tuple(found)


def matches(path: str, pattern: str) -> bool:
    """Whether an include takes a file: as in a shell, no part of a pattern stands for a slash."""
    parts, wanted = path.split("/"), normpath(pattern).split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def http_directives(dump: str) -> dict[str, str]:
    """Return the file:line of each directive that the http block itself has, by name.

    Raises NginxConfigError.
    """
    http = [inner for top in parse_dump(dump) if top.name == "http" for inner in top.block]
    return {inner.name: inner.where for inner in reversed(http)}


def parse_dump(dump: str) -> tuple[Directive, ...]:
    """Return the directives of the main file, with those of an included file after its include.

    Raises NginxConfigError.
    """
    found = _read(dump)
    if isinstance(found, str):
        raise NginxConfigError(found)
    return found


@lru_cache(maxsize=1)
def _read(dump: str) -> tuple[Directive, ...] | str:
    """Return the directives, or why they cannot be read. A run asks many times."""
    try:
        if len(dump) > _MAX_SIZE:
            raise NginxConfigError(f"it has {len(dump)} characters, more than {_MAX_SIZE}")
        return _expanded(_sections(dump))
    except NginxConfigError as error:
        return str(error)


def _expanded(files: dict[str, str]) -> tuple[Directive, ...]:
    if not files:
        return ()
    main = next(iter(files))
    parsed = {name: _parse(text, name) for name, text in files.items()}
    work = 0

    def included(pattern: str) -> list[str]:
        nonlocal work
        if not set("*?[") & set(pattern):
            return [pattern] if pattern in parsed else []
        work += 1 + len(parsed) // 10
        return sorted(name for name in parsed if matches(name, pattern))

    def expand(directives: tuple[Directive, ...], includes: int, depth: int) -> Iterator[Directive]:
        nonlocal work
        if includes > _MAX_INCLUDES:
            raise NginxConfigError("includes go round in a circle")
        for directive in directives:
            work += 1
            if work > _MAX_WORK or depth > _MAX_DEPTH:
                raise NginxConfigError(f"{directive.where}: blocks and includes multiply beyond reading")
            yield Directive(
                directive.name,
                directive.args,
                directive.file,
                tuple(expand(directive.block, includes, depth + 1)),
                directive.line,
            )
            if directive.name == "include" and directive.args:
                pattern = join(dirname(main), directive.args[0])
                for name in included(pattern):
                    yield from expand(parsed[name], includes + 1, depth + 1)

    return tuple(expand(parsed[main], 0, 0))


def _sections(dump: str) -> dict[str, str]:
    parts = _SECTION.split(dump)
    return dict(zip(parts[1::2], (text.removeprefix("\n") for text in parts[2::2]), strict=True))


def _parse(text: str, file: str) -> tuple[Directive, ...]:
    """Return the directives of one file."""
    stack: list[tuple[tuple[str, ...], list[Directive], int]] = [((), [], 0)]
    words: list[str] = []
    position, line, began = 0, 1, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unread(
                file, text, position, f"nothing known begins with {text[position : position + 20]!r}"
            )
        kind, began = match.lastgroup, began if words else line
        line, position = line + match[0].count("\n"), match.end()
        if kind is None:
            continue
        if kind != "mark":
            words.append(match[kind])
        elif match["mark"] == ";":
            if words:
                stack[-1][1].append(Directive(words[0], tuple(words[1:]), file, line=began))
            words = []
        elif match["mark"] == "{":
            if words and words[0].endswith("_by_lua_block"):
                end, words = _end_of_lua(text, position, file), []
                line, position = line + text.count("\n", position, end), end
            else:
                _check_depth(stack, f"{file}:{began}")
                stack.append((tuple(words), [], began))
                words = []
        else:
            head, block, began = stack.pop()
            if not stack or not head or words:
                raise _unread(file, text, position, "a } that closes nothing")
            stack[-1][1].append(Directive(head[0], head[1:], file, tuple(block), began))
    if len(stack) != 1 or words:
        raise _unread(file, text, len(text), "the end, in the middle of a directive")
    return tuple(stack[0][1])


def _check_depth(stack: Sized, where: str) -> None:
    if len(stack) > _MAX_DEPTH:
        raise NginxConfigError(f"{where}: more than {_MAX_DEPTH} blocks within each other")


def _end_of_lua(text: str, position: int, file: str) -> int:
    depth = 1
    for match in _LUA.finditer(text, position):
        depth += {"{": 1, "}": -1}.get(match["brace"], 0)
        if depth == 0:
            return match.end()
    raise _unread(file, text, position, "a Lua block without an end")


def _unread(file: str, text: str, position: int, what: str) -> NginxConfigError:
    return NginxConfigError(f"{file}:{text.count(chr(10), 0, position) + 1}: {what}")


def _server(directive: Directive, stream: bool) -> Server:
    names = tuple(name for inner in directive.block if inner.name == "server_name" for name in inner.args)
    lines = [inner for inner in directive.block if inner.name == "listen" and inner.args]
    listens = tuple(listen for inner in lines for listen in _listens(inner))
    where = next((inner.where for inner in directive.block if inner.name == "server_name"), directive.where)
    returns = next((inner.args for inner in directive.block if inner.name == "return"), ())
    anywhere = Listen("*", 80, where=directive.where)
    tls = any((inner.name, inner.args) == ("ssl", ("on",)) for inner in directive.block)
    return Server(directive.file, names, listens or (anywhere,), stream, returns, where, tls)


def _listens(directive: Directive) -> Iterator[Listen]:
    at, options = directive.args[0], directive.args[1:]
    if at.startswith("unix:"):
        yield Listen(at, 0, options, directive.where)
        return
    if ports := _PORTS.fullmatch(at):
        numbers = range(int(ports["first"]), int(ports["last"]) + 1)
        if len(numbers) > _MAX_RANGE:
            raise NginxConfigError(f"{directive.where}: a listen on more than {_MAX_RANGE} ports")
        for number in numbers:
            yield Listen(ports["address"] or "*", number, options, directive.where)
        return
    address, _, port = at.rpartition(":") if not at.endswith("]") else (at, "", "")
    if not _PORT.fullmatch(port):
        address, port = at, "80"
    yield Listen(address or "*", int(port), options, directive.where)
