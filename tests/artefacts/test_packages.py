"""Packages that the controller fetches: named by a host, compared with the sums of its lists."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from artefacts.offline import Offline
from artefacts.packages import PackagesError, fetched, from_index, has_index, keep_index, packed, parsed
from inventory.checkout import CHECKOUT
from tests.support.facts import DEBIAN_12

CONTENT = b"a package"


def record(name: str = "nginx", content: bytes = CONTENT, **more: Any) -> str:
    fields = {
        "Package": name, "Version": "1:2-3", "Architecture": "amd64", "Filename": f"pool/{name}.deb",
        "Size": len(content), "SHA256": hashlib.sha256(content).hexdigest(),
    } | more  # fmt: skip
    return "".join(f"{key}: {value}\n" for key, value in fields.items())


def said(url: str = "http://mirror/x.deb", text: str | None = None) -> str:
    return json.dumps({"files": [{"url": url, "record": text or record()}]})


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """Serve tmp_path/mirror, which has nginx.deb; yield its URL."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "nginx.deb").write_bytes(CONTENT)
    handler = partial(Quiet, directory=tmp_path / "mirror")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def quiet(_: str) -> None:
    pass


def test_an_archive_is_a_source_of_packages_once_unpacked(tmp_path: Path, mirror: str) -> None:
    debs = parsed(said(f"{mirror}/nginx.deb"))
    made = packed(debs, cache=tmp_path / "cache", progress=quiet)
    with tarfile.open(made.path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        name = f"{hashlib.sha256(CONTENT).hexdigest()}.deb"
        assert set(files) == {"Packages", name}
        index, package = files["Packages"], files[name]
        assert index and package
        assert f"Filename: ./{name}\n" in index.read().decode()
        assert package.read() == CONTENT
    (tmp_path / "mirror" / "nginx.deb").unlink()
    assert packed(debs, cache=tmp_path / "cache", progress=quiet) == made


def test_a_mirror_that_lies_is_named(tmp_path: Path, mirror: str) -> None:
    (tmp_path / "mirror" / "nginx.deb").write_bytes(b"A package")
    with pytest.raises(PackagesError, match="nginx is not the one that the distribution signed") as error:
        fetched(parsed(said(f"{mirror}/nginx.deb")), cache=tmp_path / "cache", progress=quiet)
    assert error.value.where == f"{mirror}/nginx.deb" and "sha256" in error.value.why
    assert not list((tmp_path / "cache").rglob("*.deb"))


def test_a_mirror_that_does_not_answer_is_named(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(PackagesError, match="cannot be fetched") as error:
        fetched(parsed(said(f"{mirror}/gone.deb")), cache=tmp_path, progress=quiet)
    assert error.value.why == "HTTP 404"


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"files": 7}', '{"files": [{"url": "http://x/y.deb"}]}', "[" * 100_000,
        said("file:///etc/shadow.deb"), said("http://user@host/x.deb"), said("http://host/x?y=.deb"),
        said("http://host/x"), said(text="Package: x\n"), said(text=record(SHA256="../x")),
        said(text=record(Size=1 << 40)), said(text=record(Size="many")),
        said(text=record() + "\nPackage: another\n"),
    ],
)  # fmt: skip
def test_a_hosts_nonsense_is_refused(text: str) -> None:
    with pytest.raises(PackagesError, match="makes no sense"):
        parsed(text)


def test_offline_the_index_of_a_bundle_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    debs = parsed(said())
    assert not has_index(DEBIAN_12, cache=tmp_path)
    keep_index(DEBIAN_12, debs, cache=tmp_path)
    assert has_index(DEBIAN_12, cache=tmp_path)
    assert from_index(DEBIAN_12, ["nginx"], {}, cache=tmp_path) == debs
    assert from_index(DEBIAN_12, ["nginx"], {"nginx": "1:2-2"}, cache=tmp_path) == debs
    assert from_index(DEBIAN_12, ["nginx"], {"nginx": "1:2-3"}, cache=tmp_path) == []
    for names, facts in ((["cron"], DEBIAN_12), (["nginx"], replace(DEBIAN_12, os_version="13"))):
        with pytest.raises(Offline, match="are not at hand") as error:
            from_index(facts, names, {}, cache=tmp_path)
        assert "invoke bundle --out" in error.value.next
    monkeypatch.setenv("DERPFLEET_OFFLINE", "1")
    with pytest.raises(Offline, match="the package nginx 1:2-3 is not at hand"):
        fetched(debs, cache=tmp_path, progress=quiet)


@pytest.mark.parametrize("extent", ["lacking", "all"])
def test_a_host_names_what_it_lacks_with_the_sums_of_its_lists(extent: str) -> None:
    """The lists are this machine's; it may have none."""
    program = CHECKOUT / "files/scripts/resolve_debs.py"
    argv = ["/usr/bin/python3", "-I", str(program), extent]
    done = subprocess.run([*argv, "hello"], capture_output=True, text=True, check=False)
    if "Unable to locate package" in done.stderr:
        pytest.skip("this machine has no package lists")
    assert done.returncode == 0, done.stderr
    found = {deb.name for deb in parsed(done.stdout)}
    assert "hello" in found and ("libc6" in found) == (extent == "all")
    wrong = subprocess.run([*argv, "no-such-package"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, "Unable to locate package no-such-package" in wrong.stderr) == (1, True)
