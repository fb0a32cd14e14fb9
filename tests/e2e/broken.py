"""Releases with one defect each, which no health check on their host sees.

Each is built from a copy of the checkout, in which a few lines of the program are others: our
relay's, or those of derper's module.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artefacts import go
from artefacts.binary import module_version
from artefacts.programs import DERPER, TAILSCALED
from inventory.checkout import CACHE, RUNS
from tests.e2e.checkouts import copied

_MACHINE = "x86_64"


@dataclass(frozen=True)
class Patch:
    """`before` is once in the file, and `after` takes its place. `file`: below the source."""

    file: str
    before: str
    after: str


# By the rung of the proof that sees the defect.
OURS: Mapping[str, tuple[Patch, ...]] = {
    "packets": (  # forwards nothing: no destination is ever known
        Patch(
            "relay/core/session.py",
            "        peer = self.switch.peers.get(destination)\n        if peer is not None and peer.active",
            "        peer = None\n        if peer is not None and peer.active",
        ),
    ),
    "handshake": (  # refuses everybody
        Patch(
            "relay/admission/admission.py",
            "        verdict = await self._ask_all(key, address, wanted)\n",
            "        verdict = Verdict(False, Answer.VERIFY_URL_REFUSED)\n",
        ),
    ),
    "tls": (  # its certificate without the chain: another one is seen by the host itself
        Patch(
            "relay/io/tls.py",
            '    text = chain.read_text("ascii")\n',
            '    text = "".join(chain.read_text("ascii").partition("-----END CERTIFICATE-----")[:2])\n',
        ),
    ),
    "stun4": (  # its STUN is dead
        Patch("relay/core/stun.py", "            size == 40\n", "            size == 41\n"),
        Patch(
            "relay/core/stun.py",
            "    if (len(request) if size is None else size) == _USUAL.size:\n",
            "    raise ProtocolError(Breach.NOT_STUN)\n"
            "    if (len(request) if size is None else size) == _USUAL.size:\n",
        ),
    ),
}  # fmt: skip
DERPERS: Mapping[str, tuple[Patch, ...]] = {
    "packets": (
        Patch(
            "derp/derpserver/derpserver.go",
            "\tdst, fwd, dstLen := c.lookupDest(dstKey)\n",
            "\tif len(contents) > 0 {\n\t\treturn nil\n\t}\n"
            "\tdst, fwd, dstLen := c.lookupDest(dstKey)\n",
        ),
    ),
    "handshake": (
        Patch(
            "derp/derpserver/derpserver.go",
            "\tif s.isMeshPeer(info) {\n\t\t// Trusted mesh peer. No need to verify further.",
            '\tif !clientKey.IsZero() {\n\t\treturn errors.New("refused")\n\t}\n'
            "\tif s.isMeshPeer(info) {\n\t\t// Trusted mesh peer. No need to verify further.",
        ),
    ),
    "tls": (
        Patch(
            "cmd/derper/cert.go",
            "\treturn &manualCertManager{\n",
            "\tcert.Certificate = cert.Certificate[:1]\n\treturn &manualCertManager{\n",
        ),
    ),
    "stun4": (
        Patch(
            "net/stunserver/stunserver.go",
            "\t\tres := stun.Response(txid, remote)\n",
            "\t\tif stun.Is(pkt) {\n\t\t\tcontinue\n\t\t}\n\t\tres := stun.Response(txid, remote)\n",
        ),
    ),
}


def checkout_of_ours(folder: Path, rung: str) -> Path:
    """Return a checkout whose relay has the defect that this rung sees."""
    copy = _copied(folder)
    for patch in OURS[rung]:
        file = copy / patch.file
        file.write_text(_patched(file, patch))
    return copy


def checkout_of_ours_with_another_tailscaled(folder: Path, rung: str) -> Path:
    """Return a checkout whose relay has that defect, and whose tailscaled has other bytes.

    These are behind the end of the program, where they mean nothing.
    """
    copy = checkout_of_ours(folder, rung)
    source = copy / "artefacts" / TAILSCALED.name
    built = go.build(source, cache=CACHE, progress=print, arch=_MACHINE)
    into = go.built_in(source, cache=copy / ".cache", arch=_MACHINE)
    shutil.copytree(built, into)
    with (into / TAILSCALED.name).open("ab") as program:
        program.write(b"another\n")
    return copy


def checkout_of_derper(folder: Path, rung: str) -> Path:
    """Return a checkout whose derper has that defect. It is built there already."""
    copy = _copied(folder)
    source, module = copy / "artefacts" / DERPER.name, _module(folder.parent / "tailscale")
    with (source / go.TAGS).open("a") as tags:
        tags.write(f"# {rung} broken\n")  # so that no good one is taken for it
    into = go.built_in(source, cache=copy / ".cache", arch=_MACHINE)
    sound = {module / patch.file: (module / patch.file).read_text() for patch in DERPERS[rung]}
    try:
        for patch in DERPERS[rung]:
            (module / patch.file).write_text(_patched(module / patch.file, patch))
        _build(source, module, into)
    finally:
        for file, text in sound.items():
            file.write_text(text)
    return copy


def _module(place: Path) -> Path:
    """Return a copy of derper's module, made once: Go lets nobody change its own."""
    if not place.exists():
        kept = CACHE / "go" / "modules" / f"tailscale.com@v{module_version(DERPER)}"
        shutil.copytree(kept, place, ignore=shutil.ignore_patterns("*_test.go"))
    return place


def _build(source: Path, module: Path, into: Path) -> None:
    """Build derper from that copy of its module, with the versions of `source`."""
    program, cache = go.toolchain(cache=CACHE, progress=print), CACHE.resolve() / "go"
    replaced = source / "broken.mod"
    replaced.write_text((source / "go.mod").read_text() + f"\nreplace tailscale.com => {module}\n")
    shutil.copy(source / "go.sum", source / "broken.sum")
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache / "objects"),
        "GOFLAGS": f"-mod=readonly -modcacherw -modfile={replaced}",
        "GOMODCACHE": str(cache / "modules"),
        "GOROOT": str(program.parent.parent),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    argv = [str(program), "build", *go.FLAGS, "-o", f"{into}/", "tailscale.com/cmd/derper"]
    subprocess.run(argv, cwd=source, env=environment, check=True, timeout=900)
    for path in source.glob("broken.*"):
        path.unlink()


def _copied(folder: Path) -> Path:
    """Return a copy of the checkout. Its releases are its own, and its records are ours."""
    copy = copied(folder)
    (copy / ".cache" / "go").mkdir(parents=True)
    for kept in CACHE.iterdir():
        if kept.name not in ("go", "releases"):
            (copy / ".cache" / kept.name).symlink_to(kept.resolve())
    (copy / ".runs").symlink_to(RUNS.resolve())
    return copy


def _patched(file: Path, patch: Patch) -> str:
    text = file.read_text()
    assert text.count(patch.before) == 1, f"{patch.file} has changed: {patch.before!r}"
    return text.replace(patch.before, patch.after)
