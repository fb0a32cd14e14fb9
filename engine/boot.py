"""The boot line: what is executed on the host, and the agent that is fed to it. Pure but for reading files/agent/."""

from __future__ import annotations

import json
import shlex
import zlib
from functools import cache
from pathlib import Path

READY = "READY 1"

# Prints READY before it reads anything: with a wrong sudo password, sudo would take the payload for further attempts. What the agent
# imports of Python's own and takes long is imported while the agent is on its way.
_BOOT = """\
import sys,zlib,json,types,linecache
print("READY 1",flush=True)
import difflib,glob,hashlib,http.client,platform,queue,shutil,ssl,subprocess,tarfile,tempfile
i=sys.stdin.buffer
n=int(i.readline() or 0)
for k,t in json.loads(zlib.decompress(i.read(n)).decode()) if n else ():
    m=sys.modules[k]=types.ModuleType(k)
    f=k.replace(".","/")+".py"
    linecache.cache[f]=(len(t),None,t.splitlines(True),f)
    exec(compile(t,f,"exec"),m.__dict__)
n and sys.modules["agent.main"].main()
"""

# In the order of their imports.
AGENT_MODULES = (
    *("tools", "wire", "facts", "journal", "kind", "paths", "accounts", "apt", "packages", "command"),
    *("restart", "systemd", "service", "kernel", "nft", "firewalls", "docker", "kinds", "host", "main"),
)


def boot_command(*, python: str, sudo: bool, prompt: str, ask_password: bool) -> str:
    """The command line for the remote shell. `prompt` is the token that sudo prints when it wants the password."""
    words = [python, "-I", "-S", "-c", _one_line(_BOOT)]
    return shlex.join(_elevated(words, sudo=sudo, prompt=prompt, ask_password=ask_password))


def elevated_command(words: list[str], *, sudo: bool, prompt: str, ask_password: bool) -> str:
    """Any other command, run as root in the same way."""
    return shlex.join(_elevated(words, sudo=sudo, prompt=prompt, ask_password=ask_password))


def _one_line(source: str) -> str:
    """`source` as one expression without line breaks, single quotes or doubled backslashes: sh, csh and fish quote it alike."""
    return 'exec("' + source.replace('"', "`").replace("\n", "\\n") + '".replace("`",chr(34)))'


def _elevated(words: list[str], *, sudo: bool, prompt: str, ask_password: bool) -> list[str]:
    if not sudo:
        return words
    # -p is found as a substring: sudo-rs wraps the prompt in words of its own. -n: never ask when there is nothing to answer.
    return ["sudo", *(["-S", "-p", prompt] if ask_password else ["-n"]), "--", *words]


@cache
def agent_payload() -> bytes:
    """The agent as the boot line reads it: a length, a line break, and that many bytes of compressed [[module, source], ...]."""
    folder = Path(__file__).parent.parent / "files" / "agent"
    modules = [["agent", ""], *([f"agent.{name}", (folder / f"{name}.py").read_text()] for name in AGENT_MODULES)]
    packed = zlib.compress(json.dumps(modules).encode(), 9)
    return b"%d\n" % len(packed) + packed
