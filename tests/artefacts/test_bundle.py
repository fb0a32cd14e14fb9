"""A bundle: the same files give the same bytes, and a changed one is refused whole."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artefacts.bundle import BundleError, use_bundle, write_bundle
from artefacts.offline import Offline
from artefacts.shipment import make_shipment
from artefacts.supplies import supplies
from inventory.checkout import CACHE
from tests.artefacts.test_release import HERE
from tests.roles.cases import load

WHEEL, DERPER = "wheels/0123456789abcdef/x-1-py3-none-any.whl", "releases/derper-x86_64-a-b.tar.gz"
HOSTS = {"hk1": "debian 12, x86_64"}


def filled(cache: Path) -> set[Path]:
    files = {cache / WHEEL: b"a wheel", cache / DERPER: b"a program" * 100_000}
    for path, content in files.items():
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return {*files}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    out, cache = tmp_path / "derpfleet.bundle", tmp_path / "from"
    write_bundle(out, cache=cache, files=filled(cache), hosts=HOSTS)
    return out


def test_what_is_written_is_what_is_used(tmp_path: Path, bundle: Path) -> None:
    digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
    used = use_bundle(bundle, cache=tmp_path / "to", expected=digest)
    assert (used.sha256, used.hosts, set(used.files)) == (digest, HOSTS, {WHEEL, DERPER})
    for name in (WHEEL, DERPER):
        assert (tmp_path / "to" / name).read_bytes() == (tmp_path / "from" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["releases", "wheels"]


def test_the_same_files_give_the_same_bytes(tmp_path: Path, bundle: Path) -> None:
    cache, again = tmp_path / "other", tmp_path / "again"
    write_bundle(again, cache=cache, files=filled(cache), hosts=HOSTS)
    assert again.read_bytes() == bundle.read_bytes()


def tar(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind if name != "manifest.json" else tarfile.REGTYPE
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def manifest(files: dict[str, Any], **more: Any) -> tuple[str, bytes]:
    return "manifest.json", json.dumps({"derpfleet": 1, "hosts": {}, "files": files} | more).encode()


def entry(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (tar(), "does not begin with manifest.json"),
        (tar((WHEEL, b"x")), "does not begin with manifest.json"),
        (tar(("manifest.json", b"{")), "Expecting"),
        (tar(("manifest.json", b"[]")), "list indices"),
        (tar(("manifest.json", b"[" * 100_000)), "recursion"),
        (tar(manifest({}, derpfleet=2)), "its format is 2"),
        (tar(manifest({WHEEL: entry(b"x")})), f"it lacks {WHEEL}"),
        (tar(manifest({WHEEL: entry(b"x")}), (WHEEL, b"y")), "is not the manifest's"),
        (tar(manifest({WHEEL: entry(b"x")}), (WHEEL, b"xx")), "not the file that the manifest names"),
        (tar(manifest({WHEEL: entry(b"")}), (WHEEL, b""), kind=tarfile.SYMTYPE), "not the file"),
        (tar(manifest({}), (WHEEL, b"x")), "not the file that the manifest names"),
        (tar(manifest({"../x": entry(b"x")}), ("../x", b"x")), "does not belong into a bundle"),
        (tar(manifest({"releases/../x": entry(b"x")})), "does not belong into a bundle"),
        (tar(manifest({"/etc/x": entry(b"x")})), "does not belong into a bundle"),
        (tar(manifest({"keys/x": entry(b"x")})), "does not belong into a bundle"),
        (tar(manifest({"releases/.lock": entry(b"x")})), "does not belong into a bundle"),
        (b"", ""),
        (b"no tar" * 1000, ""),
    ],
)
def test_a_bundle_that_is_none_is_refused_and_changes_nothing(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "x.bundle"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="damaged or was changed") as error:
        use_bundle(path, cache=tmp_path / "to")
    assert why in error.value.why and "invoke bundle --out" in error.value.next
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-20_000],
        lambda data: data.replace(b"a program", b"A program", 1),
        lambda data: data.replace(b"a wheel", b"A wheel"),
    ],
)
def test_a_bundle_that_was_cut_or_changed_is_refused(
    tmp_path: Path, bundle: Path, change: Callable[[bytes], bytes]
) -> None:
    bundle.write_bytes(change(bundle.read_bytes()))
    with pytest.raises(BundleError, match="damaged or was changed"):
        use_bundle(bundle, cache=tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_another_bundle_than_the_one_that_was_made_is_refused(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(BundleError) as error:
        use_bundle(bundle, cache=tmp_path / "to", expected="0" * 64)
    assert "its sha256 is" in error.value.why
    assert not (tmp_path / "to").exists()


def test_a_controller_without_a_network_makes_a_hosts_releases_from_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, site, _ = load("bare")
    files = supplies(host, HERE, cache=CACHE, progress=print)
    write_bundle(tmp_path / "bundle", cache=CACHE, files=files, hosts={host.name: "this machine"})
    use_bundle(tmp_path / "bundle", cache=tmp_path / "to")
    monkeypatch.setenv("DERPFLEET_OFFLINE", "1")
    shipment = make_shipment(host, site, HERE, cache=tmp_path / "to")
    assert shipment.relay_release and shipment.certbot_release
    with pytest.raises(Offline):
        make_shipment(host, site, replace(HERE, arch="riscv64"), cache=tmp_path / "to")


def test_no_file_and_no_room_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read") as error:
        use_bundle(tmp_path / "none", cache=tmp_path)
    assert error.value.where == str(tmp_path / "none")
    (tmp_path / "file").touch()
    for place in ("none", "file"):
        with pytest.raises(BundleError, match="cannot be written"):
            write_bundle(tmp_path / place / "x", cache=tmp_path, files=set(), hosts={})
