"""RPMs that the controller fetches, and the index by which dnf finds them in a folder."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from artefacts.packages import PackagesError, from_index, keep_index, parsed
from artefacts.rpms import PRIMARY, REPOMD, Rpm
from engine.scripts import script
from tests.support.facts import DEBIAN_12

COMMON, RPM = "{http://linux.duke.edu/metadata/common}", "{http://linux.duke.edu/metadata/rpm}"
URL = "https://mirror.example.org/9/AppStream/x86_64/os/Packages/n/nginx-1.20.1-20.el9~x^1.x86_64.rpm"


def record(**more: Any) -> dict[str, Any]:
    return {
        "name": "nginx", "arch": "x86_64", "epoch": 2, "version": "1.20.1", "release": "20.el9",
        "size": 40_000, "sha256": "a" * 64, "provides": ["nginx = 2:1.20.1-20.el9", "webserver"],
        "requires": ["nginx-core = 2:1.20.1-20.el9", "openssl >= 3", "(a if b >= 1 & <c>)", "/bin/sh"],
        "conflicts": [], "obsoletes": [], "files": ["/usr/sbin/nginx"],
    } | more  # fmt: skip


def said(url: str = URL, **more: Any) -> str:
    return json.dumps({"form": "rpm", "files": [{"url": url, "record": record(**more)}]})


def test_the_index_has_what_dnfs_solver_reads() -> None:
    files = Rpm.index(parsed(said()))
    plain = gzip.decompress(files[PRIMARY])
    top = files[REPOMD].decode()
    assert all(hashlib.sha256(each).hexdigest() in top for each in (plain, files[PRIMARY]))
    [package] = Xml.fromstring(plain)
    assert [package.findtext(f"{COMMON}{tag}") for tag in ("name", "arch", "checksum")] == [
        "nginx", "x86_64", "a" * 64,
    ]
    [location] = package.iter(f"{COMMON}location")
    assert location.attrib == {"href": f"{'a' * 64}.rpm"}
    [requires] = package.iter(f"{RPM}requires")
    assert [each.attrib for each in requires] == [
        {"name": "nginx-core", "flags": "EQ", "epoch": "2", "ver": "1.20.1", "rel": "20.el9"},
        {"name": "openssl", "flags": "GE", "epoch": "0", "ver": "3"},
        {"name": "(a if b >= 1 & <c>)"},
        {"name": "/bin/sh"},
    ]
    assert [each.text for each in package.iter(f"{COMMON}file")] == ["/usr/sbin/nginx"]
    assert Rpm.index(parsed(said())) == files


def test_a_bundle_names_those_that_the_host_has_not_in_the_same_version(tmp_path: Path) -> None:
    rpms = parsed(said())
    keep_index(DEBIAN_12, rpms, cache=tmp_path)
    assert from_index(DEBIAN_12, ["nginx"], {}, cache=tmp_path) == rpms
    assert from_index(DEBIAN_12, ["nginx"], {"nginx": "1:1.20.1-20.el9"}, cache=tmp_path) == rpms
    assert from_index(DEBIAN_12, ["nginx"], {"nginx": "2:1.20.1-20.el9"}, cache=tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        said("file:///etc/shadow.rpm"), said("https://host/x.deb"), said(sha256="../x"), said(size="1"),
        said(size=1 << 40), said(size=-1), said(name="../nginx"), said(name="a\nb"), said(epoch="2"),
        said(provides="nginx"), said(requires=["a\0b"]), said(files=["\x1b[31m"]), said(arch=None),
        json.dumps({"form": "exe", "files": []}), json.dumps({"form": [], "files": []}),
        json.dumps({"form": "rpm", "files": [{"url": None, "record": record()}]}),
        json.dumps({"form": "rpm", "files": [{"url": URL, "record": []}]}),
    ],
)  # fmt: skip
def test_a_hosts_nonsense_is_refused(text: str) -> None:
    with pytest.raises(PackagesError, match="makes no sense"):
        parsed(text)


def resolver(dnf: Path) -> list[str]:
    """Return the program's command on a host whose dnf is at this path."""
    text = script("resolve_rpms").replace("/usr/bin/dnf-3", str(dnf))
    return [sys.executable, "-I", "-c", text, "lacking", "nginx"]


def test_the_resolver_goes_on_in_the_python_of_dnf(tmp_path: Path) -> None:
    python, dnf = tmp_path / "python", tmp_path / "dnf-3"
    python.write_text('#!/bin/sh\necho "$1 $2 $4 $5"\n')
    python.chmod(0o755)
    dnf.write_text(f"#!{python} -s\nimport dnf\n")
    done = subprocess.run(resolver(dnf), capture_output=True, text=True, check=True)
    assert done.stdout == "-I -c lacking nginx\n"


@pytest.mark.parametrize("first", [None, "", f"#!{sys.executable}\n"])
def test_without_dnf_4_the_resolver_says_so(tmp_path: Path, first: str | None) -> None:
    dnf = tmp_path / "dnf-3"
    if first is not None:
        dnf.write_text(first)
    done = subprocess.run(resolver(dnf), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1, f"there is no dnf 4 here ({dnf}), which could name packages\n"
    )
