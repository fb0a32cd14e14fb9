"""The scan of the locks for public advisories, without asking for them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from artefacts.advisories import PackageVersion, locked, main, packages
from inventory.checkout import CHECKOUT


def test_every_lock_is_read() -> None:
    found = locked(CHECKOUT)
    names = {(one.ecosystem, one.name) for one in found}
    assert {("PyPI", "paramiko"), ("PyPI", "h11"), ("PyPI", "certbot")} <= names
    assert {("Go", "tailscale.com"), ("Go", "stdlib")} <= names
    files = {file for each in found.values() for file in each}
    assert {path.name for path in (CHECKOUT / "requirements").glob("*.lock")} <= {
        file.removeprefix("requirements/") for file in files
    }
    for path in (CHECKOUT / "requirements").glob("*.lock"):
        assert len(packages(path.name, path.read_text())) == len(
            re.findall("^[a-z].*?==", path.read_text(), re.M)
        )


def test_a_sum_of_a_go_mod_is_no_package() -> None:
    text = "a.org/x v1.2.0 h1:crnV=\na.org/x v1.2.0/go.mod h1:xzAO=\n"
    assert packages("go.sum", text) == [PackageVersion("Go", "a.org/x", "1.2.0")]


def answer(queries: Any) -> Any:
    """Answer that h11 has an advisory."""
    named = [query["package"]["name"] == "h11" for query in queries["queries"]]
    return {"results": [{"vulns": [{"id": "GHSA-1"}]} if one else {} for one in named]}


def unreachable(_: Any) -> Any:
    raise OSError("Network is unreachable")


@pytest.mark.parametrize(
    ("ask", "code", "words"),
    [
        (answer, 1, "h11 0.16.0  GHSA-1  in requirements/certbot-dns-cloudflare.lock, "),
        (lambda queries: {"results": [{} for _ in queries["queries"]]}, 0, ", 0 with advisories"),
        (lambda _: {"results": []}, 2, "could not be asked"),
        (lambda _: [], 2, "could not be asked"),
        (unreachable, 2, "could not be asked: Network is unreachable"),
    ],
)
def test_the_result_is_an_exit_code(
    ask: Any, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ask) == code
    shown = capsys.readouterr()
    assert words in shown.out + shown.err
