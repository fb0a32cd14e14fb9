"""The boot line that a host executes, and the agent that it reads. Pure, but for reading files."""

from __future__ import annotations

import ast
import json
import re
import shlex
import zlib
from functools import cache, partial
from graphlib import TopologicalSorter
from threading import Lock

from inventory.checkout import CHECKOUT

READY = "READY 1"
# Many sessions begin at once, and in Python 3.11.4 and older `ast.parse` may raise SystemError in
# two threads at a time (python/cpython#106905).
_MAKING = Lock()
ANY_PYTHON = "python3"
"""The name for which any Python of the host will do."""

# It prints READY before it reads anything: after a wrong sudo password, sudo would take the payload
# for further attempts. The slow imports of the agent are made while it is on its way.
_BOOT = """\
import sys,zlib,json,types,linecache
print("READY 1",flush=True)
import glob,hashlib,queue,shutil,socket,subprocess
i=sys.stdin.buffer
n=int(i.readline() or 0)
for k,t in json.loads(zlib.decompress(i.read(n)).decode()) if n else ():
    m=sys.modules[k]=types.ModuleType(k)
    f=k.replace(".","/")+".py"
    linecache.cache[f]=(len(t),None,t.splitlines(True),f)
    exec(compile(t,f,"exec"),m.__dict__)
n and sys.modules["agent.main"].main()
"""

# Enterprise Linux 8 need not have python3, but it has a Python for its own programs. All shells
# quote this alike, as they do the boot line.
_PLATFORM = "/usr/libexec/platform-python"
_FIND = (
    f'p={ANY_PYTHON}; command -v $p >/dev/null || {{ test -x {_PLATFORM} && p={_PLATFORM}; }}; '
    'c=$1; shift; exec "$@" $p -I -S -c "$c"'
)

_IMPORT = re.compile(r"^ *from agent\.(\w+) import ", re.M)


def boot_command(*, python: str, sudo: bool, prompt: str, ask_password: bool) -> str:
    """Return the boot line for the remote shell.

    `prompt` is the token that sudo prints to ask for the password.
    """
    elevated = partial(_elevated, sudo=sudo, prompt=prompt, ask_password=ask_password)
    words = [python, "-I", "-S", "-c", _one_line(_BOOT)]
    if python == ANY_PYTHON:
        return shlex.join(["sh", "-c", _FIND, "sh", words[-1], *elevated([])])
    return shlex.join(elevated(words))


def elevated_command(words: list[str], *, sudo: bool, prompt: str, ask_password: bool) -> str:
    """Return the command line that runs any other command as root in the same way."""
    return shlex.join(_elevated(words, sudo=sudo, prompt=prompt, ask_password=ask_password))


def _one_line(source: str) -> str:
    """Return `source` as one expression that sh, csh and fish quote alike.

    It has no line breaks, single quotes or doubled backslashes.
    """
    return 'exec("' + source.replace('"', "`").replace("\n", "\\n") + '".replace("`",chr(34)))'


def _elevated(words: list[str], *, sudo: bool, prompt: str, ask_password: bool) -> list[str]:
    if not sudo:
        return words
    # -p is found as a substring, because sudo-rs puts words of its own around the prompt.
    # -n: never ask when there is no password to answer with.
    return ["sudo", *(["-S", "-p", prompt] if ask_password else ["-n"]), "--", *words]


def agent_modules() -> dict[str, str]:
    """Return the texts of the agent's modules by name, in the order of their imports."""
    texts = {path.stem: path.read_text() for path in sorted((CHECKOUT / "files" / "agent").glob("*.py"))}
    needs = {name: _IMPORT.findall(text) for name, text in texts.items()}
    return {name: texts[name] for name in TopologicalSorter(needs).static_order()}


def agent_payload() -> bytes:
    """Return the agent as the boot line reads it.

    A length, a line break, and so many bytes of compressed [[module, source], ...].
    """
    with _MAKING:
        return _made_payload()


@cache
def _made_payload() -> bytes:
    texts = {name: _without_docstrings(text) for name, text in agent_modules().items()}
    modules = [["agent", ""], *([f"agent.{name}", text] for name, text in texts.items())]
    packed = zlib.compress(json.dumps(modules).encode(), 9)
    return b"%d\n" % len(packed) + packed


def _without_docstrings(source: str) -> str:
    """Return the source with `0` for each docstring. All other lines keep their numbers.

    They are a quarter of the payload: without them it needs a flight of packets less where a
    connection begins with ten of them (RFC 6928).
    """
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            text = node.body[0]
            first, last = text.lineno - 1, text.end_lineno or text.lineno
            lines[first:last] = [lines[first][: text.col_offset] + "0", *[""] * (last - first - 1)]
    return "\n".join(lines)
