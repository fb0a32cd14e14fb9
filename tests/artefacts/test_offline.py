"""`DERPFLEET_OFFLINE`: nothing is fetched, and an error says what is missing and how to get it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artefacts import go
from artefacts.binary import build_binary, source
from artefacts.offline import Offline, is_offline
from artefacts.programs import CERTBOT, DERPER
from artefacts.release import build_release, kept
from tests.support.facts import DEBIAN_12


def quiet(_: str) -> None:
    pass


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_variable_is_read(monkeypatch: pytest.MonkeyPatch, value: str, offline: bool) -> None:
    monkeypatch.setenv("DERPFLEET_OFFLINE", value)
    assert is_offline() == offline


@pytest.mark.parametrize(
    ("what", "make"),
    [
        (
            "a wheel of the locks for Python 3.11 on manylinux_2_36_x86_64 is not at hand",
            lambda cache: build_release(CERTBOT, DEBIAN_12, cache=cache),
        ),
        (
            "the Go program derper for aarch64 is not at hand",
            lambda cache: build_binary(DERPER, "aarch64", cache=cache, progress=quiet),
        ),
    ],
)
def test_a_missing_artefact_is_an_error_that_names_the_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, make: Callable[[Path], Any]
) -> None:
    real = subprocess.Popen

    def popen(argv: list[str], **more: Any) -> Any:
        assert argv[0] == "rm"
        return real(argv, **more)

    monkeypatch.setenv("DERPFLEET_OFFLINE", "1")
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(Offline) as error:
        make(tmp_path)
    assert error.value.what == what
    assert "DERPFLEET_OFFLINE" in error.value.why
    assert "invoke bundle --out" in error.value.next and "invoke bundle --use" in error.value.next


def test_a_kept_derper_needs_neither_network_nor_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = go.built_in(source(DERPER), cache=tmp_path, arch="x86_64").name.rpartition("-")[2]
    there = kept(tmp_path, "derper-x86_64", key, lambda: b"an archive")
    monkeypatch.setenv("DERPFLEET_OFFLINE", "1")
    assert build_binary(DERPER, "x86_64", cache=tmp_path, progress=quiet) == there
