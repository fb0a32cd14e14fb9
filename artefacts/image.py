"""Docker images, made on the controller without Docker: derper's, and archives of other tools.

Every archive is brought into one form, with a tag made from the image's content. So a host can tell
whether it has this very image, with any image store of its Docker. Same inputs, same bytes. Format:
OCI image layout, with Docker's manifest.json beside it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from artefacts.go import GO_ARCH
from engine.cache import locked, prune, used, write
from engine.plan import sha256
from inventory.checkout import CHECKOUT
from inventory.errors import DerpfleetError

ENTRYPOINT = CHECKOUT / "files" / "derper-entrypoint.sh"
REPOSITORY = "derpfleet/derper"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"

Json = dict[str, Any]


class ImageError(DerpfleetError):
    """An image archive cannot be used."""


@dataclass(frozen=True)
class ImageArtefact:
    """An archive for `docker load`, and the reference of the loaded image."""

    ref: str
    path: Path


def import_archive(source: Path, *, arch: str, cache: Path) -> ImageArtefact:
    """Return the archive of one image, brought into our form. It is made at most once.

    `source`: an archive of `docker save` or of an OCI tool. `arch`: the host's `uname -m`.
    Raises ImageError when the file is not such an archive, holds several images, or is for another
    machine.
    """
    key = content_of(source)
    folder, name = cache / "images", f"{key[:16]}-{arch}"
    path, ref_path = folder / f"{name}.tar.gz", folder / f"{name}.ref"
    with locked(folder / ".lock"):
        if not (path.exists() and ref_path.exists()):
            config, layers = _read(source, GO_ARCH.get(arch, arch))
            ref, content = write_image(config, layers)
            write(path, content)
            write(ref_path, ref.encode())
            prune(folder, "*.tar.gz*")
            prune(folder, "*.ref*")
        return ImageArtefact(used(ref_path).read_text(), used(path))


def content_of(source: Path) -> str:
    """Return the SHA-256 of an archive, in hex. Raises ImageError."""
    try:
        return sha256(source)
    except OSError as error:
        why, step = error.strerror or "", "fix docker.archive in the site file"
        raise ImageError(f"{source} cannot be read", why=why, next=step) from error


def write_derper_image(
    out: Path, *, derper: Path, busybox: Path, ca_bundle: Path, arch: str = "x86_64"
) -> str:
    """Write our own image as an archive to `out`, and return its reference.

    It holds a static derper, BusyBox as its shell, CA certificates, and an entry point that knows
    the DERP_* variables.
    """
    layer = _layer(
        {
            "bin/busybox": (busybox.read_bytes(), 0o755),
            "entrypoint.sh": (ENTRYPOINT.read_bytes(), 0o755),
            "etc/passwd": (b"root:x:0:0:root:/root:/bin/sh\n", 0o644),
            "etc/ssl/certs/ca-certificates.crt": (ca_bundle.read_bytes(), 0o644),
            "usr/local/bin/derper": (derper.read_bytes(), 0o755),
        },
        links={"bin/sh": "busybox"},
        folders=("app/certs", "root", "tmp", "var/lib/derper"),
    )
    config: Json = {
        "architecture": GO_ARCH.get(arch, arch),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": ["/entrypoint.sh"], "Env": ["PATH=/usr/local/bin:/bin", "HOME=/root"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    ref, content = write_image(_canonical(config), [layer])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content)
    return ref


def write_image(config: bytes, layers: Sequence[bytes]) -> tuple[str, bytes]:
    """Return reference and archive of an image, from its config (JSON) and uncompressed layers."""
    tag = hashlib.sha256(config).hexdigest()[:12]
    blobs = {_blob_path(part): part for part in (config, *layers)}
    manifest = _canonical(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, layer) for layer in layers],
        }
    )
    names = {
        "io.containerd.image.name": f"docker.io/{REPOSITORY}:{tag}",
        "org.opencontainers.image.ref.name": tag,
    }
    listed = [_descriptor(_MANIFEST, manifest) | {"annotations": names}]
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": listed}
    paths = [_blob_path(layer) for layer in layers]
    docker = [{"Config": _blob_path(config), "RepoTags": [f"{REPOSITORY}:{tag}"], "Layers": paths}]
    files = {
        **blobs,
        _blob_path(manifest): manifest,
        "index.json": _canonical(index),
        "manifest.json": _canonical(docker),
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
    }
    tar = _layer({name: (content, 0o644) for name, content in files.items()})
    return f"{REPOSITORY}:{tag}", gzip.compress(tar, 6, mtime=0)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _blob_path(content: bytes) -> str:
    return "blobs/sha256/" + hashlib.sha256(content).hexdigest()


def _descriptor(media_type: str, content: bytes) -> Json:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _layer(
    files: Mapping[str, tuple[bytes, int]],
    links: Mapping[str, str] = {},
    folders: Sequence[str] = (),
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        parents = {str(parent) for name in (*files, *links) for parent in Path(name).parents}
        for folder in sorted({*folders, *parents} - {"."}):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        for name in sorted(files):
            content, mode = files[name]
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
        for name in sorted(links):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, links[name]
            tar.addfile(info)
    return out.getvalue()


def _read(source: Path, architecture: str) -> tuple[bytes, list[bytes]]:
    """Return config and uncompressed layers of the one image in an archive. Raises ImageError."""
    try:
        with tarfile.open(source) as tar:
            names = set(tar.getnames())

            def content(name: str) -> bytes:
                file = tar.extractfile(name)
                if file is None:
                    raise KeyError(name)
                return file.read()

            parts = _docker_parts if "manifest.json" in names else _oci_parts
            config, layers = parts(content, source, architecture)
    except (tarfile.TarError, KeyError, IndexError, ValueError) as error:
        step = "make it with docker save, or with an OCI tool"
        raise ImageError(f"{source} is not an image archive", why=str(error), next=step) from error
    found = json.loads(config).get("architecture")
    if found != architecture:
        what = f"{source} is for {found}, the host is {architecture}"
        raise ImageError(what, next="name an archive for the host's architecture")
    return config, [_plain(layer, source) for layer in layers]


def _docker_parts(
    content: Callable[[str], bytes], source: Path, _architecture: str
) -> tuple[bytes, list[bytes]]:
    images = json.loads(content("manifest.json"))
    if len(images) != 1:
        raise ImageError(f"{source} holds {len(images)} images", next="save the derper image alone")
    return content(images[0]["Config"]), [content(name) for name in images[0]["Layers"]]


def _oci_parts(content: Callable[[str], bytes], source: Path, architecture: str) -> tuple[bytes, list[bytes]]:
    def blob(descriptor: Json) -> bytes:
        return content("blobs/" + descriptor["digest"].replace(":", "/"))

    document = cast(Json, json.loads(content("index.json")))
    while "manifests" in document:
        platforms = [(item.get("platform", {}), item) for item in document["manifests"]]
        here = [item for its, item in platforms if its.get("architecture", architecture) == architecture]
        if len(here) != 1:
            what = f"{source} holds {len(here)} images for {architecture}"
            raise ImageError(what, next="save the derper image alone")
        document = json.loads(blob(here[0]))
    return blob(document["config"]), [blob(descriptor) for descriptor in document["layers"]]


def _plain(layer: bytes, source: Path) -> bytes:
    if layer[:2] == b"\x1f\x8b":
        return gzip.decompress(layer)
    if layer[:4] == b"\x28\xb5\x2f\xfd":
        step = "save it with gzip or uncompressed layers"
        raise ImageError(f"{source} has layers packed with zstd", next=step)
    return layer


def main() -> None:
    """Make our image from a static derper: `python -m artefacts.image DERPER OUT`."""
    parser = argparse.ArgumentParser(prog="python -m artefacts.image", description=main.__doc__)
    parser.add_argument(
        "derper", type=Path, help="a static build: CGO_ENABLED=0 go build tailscale.com/cmd/derper"
    )
    parser.add_argument("out", type=Path, help="the archive to write, for docker.archive in the site file")
    parser.add_argument(
        "--busybox",
        type=Path,
        default=Path("/bin/busybox"),
        help="a static BusyBox (Debian: busybox-static)",
    )
    parser.add_argument("--ca-bundle", type=Path, default=Path("/etc/ssl/certs/ca-certificates.crt"))
    parser.add_argument("--arch", default="x86_64", help="uname -m of the hosts")
    words = parser.parse_args()
    ref = write_derper_image(
        words.out,
        derper=words.derper,
        busybox=words.busybox,
        ca_bundle=words.ca_bundle,
        arch=words.arch,
    )
    print(ref)


if __name__ == "__main__":
    main()
