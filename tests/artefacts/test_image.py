"""Images without Docker: our derper image, and archives of other tools in one form."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from artefacts.image import ENTRYPOINT, ImageError, import_archive, write_derper_image, write_image

CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
).encode()


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def content_of(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}


def docker_save(*tags: str) -> dict[str, bytes]:
    """Return the files of an archive in the form of old `docker save`s."""
    images = [
        {"Config": "abc.json", "RepoTags": [tag], "Layers": ["1/layer.tar", "2/layer.tar"]} for tag in tags
    ]
    return {
        "abc.json": CONFIG,
        "1/layer.tar": b"layer one",
        "2/layer.tar": b"layer two",
        "manifest.json": json.dumps(images).encode(),
    }


def oci(*architectures: str, pack: Any = gzip.compress) -> dict[str, bytes]:
    """Return the files of an archive of OCI tools: an index of images, packed layers."""
    files: dict[str, bytes] = {}

    def put(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        files[f"blobs/sha256/{digest}"] = content
        return {"digest": f"sha256:{digest}", "size": len(content)}

    images = []
    for name in architectures:
        config = CONFIG.replace(b"amd64", name.encode())
        manifest = {"config": put(config), "layers": [put(pack(b"layer one")), put(pack(b"layer two"))]}
        images.append(
            put(json.dumps(manifest).encode()) | {"platform": {"architecture": name, "os": "linux"}}
        )
    files["index.json"] = json.dumps(
        {"manifests": [put(json.dumps({"manifests": images}).encode())]}
    ).encode()
    return files


@pytest.mark.parametrize(
    "files",
    [docker_save("derper:latest"), oci("arm64", "amd64"), oci("amd64", pack=bytes)],
    ids=["docker", "oci", "oci-plain"],
)
def test_every_form_becomes_the_same_archive(files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(tar_of(files))
    made = import_archive(tmp_path / "in.tar", arch="x86_64", cache=tmp_path)
    assert (made.ref, made.path.read_bytes()) == write_image(CONFIG, [b"layer one", b"layer two"])
    assert import_archive(tmp_path / "in.tar", arch="x86_64", cache=tmp_path) == made


def test_the_archive_is_what_both_of_dockers_image_stores_read() -> None:
    ref, archive = write_image(CONFIG, [b"layer one"])
    files = content_of(archive)
    (image,) = json.loads(files["manifest.json"])
    assert (files[image["Config"]], [files[name] for name in image["Layers"]]) == (CONFIG, [b"layer one"])
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(files["blobs/" + entry["digest"].replace(":", "/")])
    assert manifest["config"]["digest"] == "sha256:" + hashlib.sha256(CONFIG).hexdigest()
    assert image["RepoTags"] == [ref]
    assert entry["annotations"]["io.containerd.image.name"] == f"docker.io/{ref}"
    assert ref.startswith("derpfleet/derper:")
    assert all(
        name.endswith(hashlib.sha256(content).hexdigest())
        for name, content in files.items()
        if name.startswith("blobs/")
    )


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (docker_save("a:1", "b:2"), "holds 2 images"),
        (docker_save(), "holds 0 images"),
        ({"x": b""}, "is not an image archive"),
        (oci("arm64"), "holds 0 images for amd64"),
        (
            {**docker_save("a:1"), "abc.json": CONFIG.replace(b"amd64", b"arm64")},
            "is for arm64, the host is amd64",
        ),
        (oci("amd64", pack=lambda layer: b"\x28\xb5\x2f\xfd" + layer), "packed with zstd"),
    ],
)
def test_an_unusable_archive_is_refused(files: dict[str, bytes], words: str, tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(tar_of(files))
    with pytest.raises(ImageError, match=words):
        import_archive(tmp_path / "in.tar", arch="x86_64", cache=tmp_path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(b"hello")
    with pytest.raises(ImageError, match="is not an image archive"):
        import_archive(tmp_path / "in.tar", arch="x86_64", cache=tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        import_archive(tmp_path / "absent.tar", arch="x86_64", cache=tmp_path)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    for name in ("derper", "busybox", "ca"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    return {"derper": tmp_path / "derper", "busybox": tmp_path / "busybox", "ca_bundle": tmp_path / "ca"}


def test_our_image_has_the_same_digest_each_time(parts: dict[str, Path], tmp_path: Path) -> None:
    first = write_derper_image(tmp_path / "one.tar.gz", **parts)
    os.utime(parts["derper"], (0, 0))
    assert write_derper_image(tmp_path / "sub" / "two.tar.gz", **parts) == first
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "sub" / "two.tar.gz").read_bytes()
    parts["derper"].write_bytes(b"another")
    assert write_derper_image(tmp_path / "one.tar.gz", **parts) != first


def test_our_image_holds_what_derper_needs(parts: dict[str, Path], tmp_path: Path) -> None:
    write_derper_image(tmp_path / "one.tar.gz", **parts)
    files = content_of((tmp_path / "one.tar.gz").read_bytes())
    (image,) = json.loads(files["manifest.json"])
    config = json.loads(files[image["Config"]])
    layer = files[image["Layers"][0]]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    assert config["config"]["Entrypoint"] == ["/entrypoint.sh"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        members = {info.name: info for info in tar}
    assert members["bin/sh"].linkname == "busybox"
    assert members["tmp"].mode == 0o1777
    assert members["var/lib/derper"].isdir()
    assert all(
        members[name].mode == 0o755 for name in ("usr/local/bin/derper", "bin/busybox", "entrypoint.sh")
    )


def entry(environment: dict[str, str], tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the entry point with a derper that prints its arguments."""
    (tmp_path / "derper").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "derper").chmod(0o755)
    return subprocess.run(
        ["sh", str(ENTRYPOINT), *words],
        env={"PATH": f"{tmp_path}:/bin:/usr/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_variables_become_derpers_flags(tmp_path: Path) -> None:
    environment = {
        "DERP_DOMAIN": "hk1.example.org",
        "DERP_ADDR": ":81",
        "DERP_CERT_MODE": "manual",
        "DERP_CERT_DIR": "/certs here",
        "DERP_HTTP_PORT": "-1",
        "DERP_STUN": "false",
        "DERP_STUN_PORT": "3479",
        "DERP_HOME": "blank",
        "DERP_VERIFY_CLIENTS": "true",
        "DERP_VERIFY_CLIENT_URL": "https://hs/verify?a=1&b=2",
        "DERP_VERIFY_CLIENT_URL_FAIL_OPEN": "false",
    }
    assert entry(environment, tmp_path, "-mesh-psk-file", "/k").stdout.splitlines() == [
        "-c", "/var/lib/derper/derper.key", "-hostname", "hk1.example.org", "-a", ":81",
        "-certmode", "manual", "-certdir", "/certs here", "-http-port", "-1",
        "-stun=false", "-stun-port", "3479", "-home", "blank", "-verify-clients=true",
        "-verify-client-url", "https://hs/verify?a=1&b=2", "-verify-client-url-fail-open=false",
        "-mesh-psk-file", "/k",
    ]  # fmt: skip


def test_the_defaults_are_those_of_the_common_images(tmp_path: Path) -> None:
    words = entry({"DERP_DOMAIN": "x"}, tmp_path).stdout.split()
    assert {
        "-a": ":443",
        "-certmode": "letsencrypt",
        "-certdir": "/app/certs",
        "-http-port": "80",
    }.items() <= dict(pairwise(words)).items()
    assert {"-stun=true", "-verify-clients=false"} <= set(words)


def test_without_a_domain_it_says_so(tmp_path: Path) -> None:
    done = entry({}, tmp_path)
    assert done.returncode != 0
    assert "DERP_DOMAIN: is not set: the name that clients connect to" in done.stderr
