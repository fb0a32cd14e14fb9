"""Read what `nginx -T` prints: the servers of a configuration, with the file of each. Pure.

It knows only the grammar that this needs: words, quotes, comments, blocks, includes. Lua blocks are
skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from posixpath import dirname, join

_SECTION = re.compile(r"^# configuration file (\S+):$", re.M)
# `*+` and `++` keep no way back: a host's string of megabytes would else take gigabytes.
_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|"(?P<double>(?:\\.|[^"\\]+)*+)"|'(?P<single>(?:\\.|[^'\\]+)*+)'"""
    r"""|(?P<mark>[{};])|(?P<word>(?:\\.|\$\{[^{}]*\}|[^\s{};\\])++)""",
    re.S,
)

# The parts of Lua code that matter for counting braces. None counts in a comment or in a string,
# short or [==[ long ]==].
_LUA = re.compile(
    r"""(--)?\[(?P<level>=*)\[(.*?\](?P=level)\]|(?P<open>))|--[^\n]*"""
    r"""|"(?:\\.|[^"\\]+)*+("|(?P<double>\Z))|'(?:\\.|[^'\\]+)*+('|(?P<single>\Z))|(?P<brace>[{}])""",
    re.S,
)


# More than any host has. Whoever prints more wants the controller to run out of time or memory.
_PIECES_MAX = 600_000
_DIRECTIVES_MAX = 100_000
_DEPTH_MAX = 50


class NginxConfigError(ValueError):
    """The text is no nginx configuration, or we cannot read it: file, line, and the text there."""


@dataclass(frozen=True, slots=True)
class Directive:
    """`name args;` or `name args { block }`, and the file that it is in."""

    name: str
    args: tuple[str, ...]
    file: str
    block: tuple[Directive, ...] = ()


@dataclass(frozen=True)
class Listen:
    """One `listen`: address "*", "[::]", an address as written, or "unix:…" (then port 0)."""

    address: str
    port: int
    options: tuple[str, ...] = ()

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is one of IPv6."""
        return self.address.startswith("[")


@dataclass(frozen=True)
class Server:
    """One `server` block of http, or with `stream` of stream.

    `returns`: the arguments of its own `return`, which comes before all locations.
    """

    file: str
    names: tuple[str, ...]
    listens: tuple[Listen, ...]
    stream: bool = False
    returns: tuple[str, ...] = ()


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


def parse_dump(dump: str) -> tuple[Directive, ...]:
    """Return the directives of the main file, with those of an included file after its include.

    Raises NginxConfigError.
    """
    found = _parsed(dump)
    if isinstance(found, NginxConfigError):
        raise found
    return found


@lru_cache(maxsize=1)
def _parsed(dump: str) -> tuple[Directive, ...] | NginxConfigError:
    """Return the directives, or why there are none. The roles ask for both a dozen times."""
    try:
        return _read_dump(dump)
    except NginxConfigError as error:
        return error


def _read_dump(dump: str) -> tuple[Directive, ...]:
    files = _sections(dump)
    if not files:
        return ()
    main = next(iter(files))
    left = [_PIECES_MAX]
    parsed = {name: _parse(text, name, left) for name, text in files.items()}
    expanded = 0

    def expand(directives: tuple[Directive, ...], depth: int) -> Iterator[Directive]:
        nonlocal expanded
        if depth > 20:
            raise NginxConfigError("includes go round in a circle")
        for directive in directives:
            expanded += 1
            if expanded > _DIRECTIVES_MAX:
                raise NginxConfigError(f"it has more than {_DIRECTIVES_MAX} directives, with its includes")
            yield Directive(
                directive.name, directive.args, directive.file, tuple(expand(directive.block, depth))
            )
            if directive.name == "include" and directive.args:
                pattern = join(dirname(main), directive.args[0])
                is_glob = not {*pattern}.isdisjoint("*?[")
                names = sorted(name for name in parsed if fnmatch(name, pattern)) if is_glob else [pattern]
                expanded += len(parsed) // 100 if is_glob else 0  # a comparison costs less than a directive
                for name in filter(parsed.__contains__, names):
                    yield from expand(parsed[name], depth + 1)

    return tuple(expand(parsed[main], 0))


def _sections(dump: str) -> dict[str, str]:
    parts = _SECTION.split(dump)
    return dict(zip(parts[1::2], (text.removeprefix("\n") for text in parts[2::2]), strict=True))


def _parse(text: str, file: str, left: list[int]) -> tuple[Directive, ...]:
    """Return the directives of one file. `left`: how many pieces of text may still be read."""
    stack: list[tuple[tuple[str, ...], list[Directive]]] = [((), [])]
    words: list[str] = []
    position = 0
    while position < len(text):
        left[0] -= 1
        if left[0] < 0 or len(stack) > _DEPTH_MAX:
            raise _unread(file, text, position, "more text, or more nested blocks, than is read here")
        match = _piece(text, position, file)
        position, kind = match.end(), match.lastgroup
        if kind is None:
            continue
        if kind != "mark":
            words.append(match[kind])
        elif match["mark"] == ";":
            if words:
                stack[-1][1].append(Directive(words[0], tuple(words[1:]), file))
            words = []
        elif match["mark"] == "{":
            if words and words[0].endswith("_by_lua_block"):
                position, words = _end_of_lua(text, position, file), []
            else:
                stack.append((tuple(words), []))
                words = []
        else:
            head, block = stack.pop()
            if not stack or not head or words:
                raise _unread(file, text, position, "a } that closes nothing")
            stack[-1][1].append(Directive(head[0], head[1:], file, tuple(block)))
    if len(stack) != 1 or words:
        raise _unread(file, text, len(text), "the end, in the middle of a directive")
    return tuple(stack[0][1])


def _piece(text: str, position: int, file: str) -> re.Match[str]:
    match = _TOKEN.match(text, position)
    if match is None:
        raise _unread(file, text, position, f"nothing known begins with {text[position : position + 20]!r}")
    return match


def _end_of_lua(text: str, position: int, file: str) -> int:
    depth = 1
    for match in _LUA.finditer(text, position):
        if "" in (match["open"], match["double"], match["single"]):
            break  # a string without an end: to look on would cost as much again for each
        depth += {"{": 1, "}": -1}.get(match["brace"], 0)
        if depth == 0:
            return match.end()
    raise _unread(file, text, position, "a Lua block without an end")


def _unread(file: str, text: str, position: int, what: str) -> NginxConfigError:
    return NginxConfigError(f"{file}:{text.count(chr(10), 0, position) + 1}: {what}")


def _server(directive: Directive, stream: bool) -> Server:
    names = tuple(name for inner in directive.block if inner.name == "server_name" for name in inner.args)
    listens = tuple(_listen(inner.args) for inner in directive.block if inner.name == "listen" and inner.args)
    returns = next((inner.args for inner in directive.block if inner.name == "return"), ())
    return Server(directive.file, names, listens or (Listen("*", 80),), stream, returns)


def _listen(args: tuple[str, ...]) -> Listen:
    where, options = args[0], args[1:]
    if where.startswith("unix:"):
        return Listen(where, 0, options)
    if where.isdigit():
        return Listen("*", int(where), options)
    address, _, port = where.rpartition(":") if not where.endswith("]") else (where, "", "")
    if not port.isdigit():
        address, port = where, "80"
    return Listen(address or "*", int(port), options)
