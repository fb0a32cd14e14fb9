"""The life of a lab: `up` makes one, `down` removes it.

`up` may find no lab, a whole one, one that lacks a part, or the remains of a crash; it ends with a
whole one or with none. `down` removes everything that this lab made and nothing else.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artefacts import go
from engine.cache import Progress
from inventory.checkout import CACHE
from lab import cgroup, debian, netns, sitefile, state
from lab.certificates import machine_bundle
from lab.errors import LabError
from lab.files import remove_tree
from lab.host import make_keys
from lab.lab import Lab
from lab.process import Processes
from lab.programs import PEBBLE, TAILNET
from lab.systems import BASES
from lab.topology import ACME, EVERY_HOST, EVERY_PART, NETWORK, PARTS, SITES

PACKAGES = Path(__file__).parent / "packages.txt"
OWN_FILES = (
    "hosts", "sites", "etc", "acme", "headscale", "ssh", "log", "site.yml", "known_hosts", "ca.pem",
    "enter", "status.html", state.FILE,
)  # fmt: skip


def up(root: Path, *, progress: Progress, only: Iterable[str] = PARTS, cache: Path = CACHE) -> Lab:
    """Return a lab in this folder with at least these parts: hk1 sg1 hs1 acme site-a site-b site-c.

    Other hosts, such as el1, are there only if `only` has them.
    A lab that is up is kept, and missing parts are added. A lab with a part that has ended is
    removed first. Raises LabError; then nothing of a new lab is left but its logs.
    """
    wanted = [part for part in EVERY_PART if part in set(only)]
    if unknown := set(only) - set(EVERY_PART):
        raise LabError(f"the lab has no {', '.join(sorted(unknown))}", next=f"any of {', '.join(EVERY_PART)}")
    _check_machine()
    root, cache, say = root.resolve(), cache.resolve(), _one_line_at_a_time(progress)
    with exclusive(root):
        lab = load(root, cache=cache)
        if lab is not None and lab.whole:
            if missing := [part for part in wanted if part not in lab.state.ready]:
                _raise(lab, missing, say)
            return lab
        _clear(root, cache=cache)
        lab = Lab(state.State(root, netns.choose(root, list(debian.servers().values()))), cache)
        try:
            _raise(lab, wanted, say)
        except BaseException:
            _clear(root, cache=cache, keep=("log",))
            raise
        return lab


def load(root: Path, *, cache: Path = CACHE) -> Lab | None:
    """Return the lab in this folder, None where there is none."""
    found = state.read(root.resolve())
    return None if found is None else Lab(found, cache.resolve())


def down(root: Path, *, cache: Path = CACHE) -> None:
    """Remove the lab of this folder, whole, half-made or crashed. Raises LabError.

    Packages that its hosts fetched stay in the cache.
    """
    _check_root()
    root = root.resolve()
    with exclusive(root):  # also where the folder is gone: the lab's processes may still run
        _clear(root, cache=cache.resolve())
        (root / "lock").unlink()
    if not any(root.iterdir()):
        root.rmdir()


def status(root: Path) -> dict[str, Any]:
    """Return the lab's state.

    It is {"up": bool, "namespace": str, "network": str, "parts": {part: {"alive": bool}}}. A host
    also has its "address" and "domain", a site a bool "client": whether its tailscaled runs.
    """
    lab = load(root)
    if lab is None:
        return {"up": False, "parts": {}}
    alive = lab.alive()
    parts: dict[str, dict[str, Any]] = {
        part: {"alive": alive[part]} for part in lab.state.ready if part != NETWORK
    }
    for part, facts in parts.items():
        if part in EVERY_HOST:
            facts |= {"address": str(lab.topology.ipv4(part)), "domain": EVERY_HOST[part].domain}
        elif part in SITES:
            facts["client"] = lab.clients[part].running
    return {
        "up": lab.whole,
        "namespace": lab.topology.namespace,
        "network": str(lab.topology.network),
        "parts": parts,
    }


def _raise(lab: Lab, parts: list[str], progress: Progress) -> None:
    """Make the missing parts: the Debian root, the Go programs and the hosts side by side."""
    began = time.monotonic()
    if NETWORK not in lab.state.ready:
        lab.root.mkdir(parents=True, exist_ok=True)
        lab.state.write()
        make_keys(lab.root / "ssh")
        lab.headscale.make_certificate()
        lab.ca.write_text(machine_bundle() + lab.headscale.ca.read_text())
        netns.make(lab.topology, lab.processes)
        lab.dns.start()
        lab.state.is_ready(NETWORK)
    with _pool() as pool:
        programs: dict[str, Future[Path]] = {}
        if users := [part for part in parts if part == lab.headscale.host.name or part in SITES]:
            built = pool.submit(go.build, TAILNET, cache=lab.cache, progress=progress)
            programs = dict.fromkeys(users, built)
        if ACME in parts:
            programs[ACME] = pool.submit(go.build, PEBBLE, cache=lab.cache, progress=progress)
        systems = {(spec.system, spec.suite) for name, spec in EVERY_HOST.items() if name in parts}
        bases = {
            (system, suite): pool.submit(BASES[system], suite, cache=lab.cache, progress=progress)
            for system, suite in systems
        }

        def raise_part(part: str) -> None:
            since = time.monotonic()
            if spec := EVERY_HOST.get(part):
                _raise_host(lab, part, bases[spec.system, spec.suite], programs)
            elif part == ACME:
                programs[part].result()
                lab.acme.start()
            else:
                lab.clients[part].prepare()
                programs[part].result()
            lab.state.is_ready(part)
            progress(f"{part}: up ({time.monotonic() - since:.1f} s)")

        for future in as_completed([pool.submit(raise_part, part) for part in parts]):
            future.result()
    hosts = [host for host in lab.hosts.values() if host.name in lab.state.ready]
    sitefile.write(lab.root, lab.topology, acme=lab.acme, headscale=lab.headscale, hosts=hosts)
    progress(f"lab: up in {time.monotonic() - began:.1f} s")


def _raise_host(lab: Lab, name: str, base: Future[Path], programs: Mapping[str, Future[Path]]) -> None:
    host = lab.hosts[name]
    host.stop()  # one that an earlier attempt left
    host.prepare(base.result(), cache=lab.cache, ca=lab.headscale.ca)
    if host is not lab.headscale.host:
        host.boot()
        return
    lab.headscale.lay_out(programs[name].result() / "headscale")
    host.boot()
    lab.headscale.start()


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; after a failure, tasks that have not begun never do."""
    with ThreadPoolExecutor() as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _clear(root: Path, *, cache: Path, keep: tuple[str, ...] = ()) -> None:
    """Remove processes, namespaces, control groups and files, in this order.

    Works without a state file as well: names derive from the folder.
    """
    found = state.read(root) or state.State(root, netns.nowhere(root))
    lab = Lab(found, cache)
    for host in lab.hosts.values():
        host.stop()
        debian.keep_packages(host.folder, suite=host.spec.suite, cache=cache)
    Processes(root, root / "log").stop_all()
    netns.remove(found.topology)
    cgroup.remove(found.topology)
    for name in OWN_FILES:
        if name not in keep and (root / name).exists():
            remove_tree(root / name)


def _check_root() -> None:
    if os.geteuid() != 0:
        raise LabError(
            "the lab needs root",
            why="it makes network namespaces and boots containers",
            next="run the same command with sudo",
        )


def _check_machine() -> None:
    _check_root()
    rows = [
        line.split(maxsplit=2)
        for line in PACKAGES.read_text().splitlines()
        if line and not line.startswith("#")
    ]
    if missing := [package for package, program, _ in rows if shutil.which(program) is None]:
        raise LabError(
            "Debian packages are missing", why=", ".join(missing), next=f"apt-get install {' '.join(missing)}"
        )
    if not Path("/dev/net/tun").exists():
        raise LabError(
            "this machine has no /dev/net/tun", why="the lab's way out needs it", next="modprobe tun"
        )


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Keep other commands from raising this lab or taking it down.

    Raises LabError when one does so now.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                "this lab is being raised or taken down by another command",
                where=str(root),
                next="wait for it",
            ) from None
        yield


def _one_line_at_a_time(progress: Progress) -> Callable[[str], None]:
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock:
            progress(line)

    return say
