"""`invoke bundle`: what the hosts need goes into one file, and out of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from artefacts import packages
from artefacts.bundle import BundleError
from engine.facts import Output
from engine.login import Login, Unreachable
from engine.report import Report
from fleet import bundle as verb
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.packages import PackageSupply
from tests.artefacts.test_packages import said
from tests.roles.cases import facts_of, load, shipment

BARE = facts_of("bare")
NAMED = said("http://mirror/nginx.deb")
NAME = "wheels/0123456789abcdef/x.whl"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: io.StringIO) -> Callable[..., int]:
    """Return the verb on a site with one host, on a controller whose cache is `cache`.

    The host answers with `facts`, or does not if that is None.
    """

    def answer(ask: Any) -> Any:
        """Name one package, as a host's lists do."""
        [(name, argv)] = ask.commands.items()
        assert argv[4] == "all" and "nginx" in argv
        return replace(BARE, commands={name: Output(status=0, stdout=NAMED, stderr="")})

    def go(
        *, case: str = "bare", cache: str = "here", facts: Any = BARE, source: str = "host", **files: str
    ) -> int:
        host, site, _ = load(case)
        host = host.model_copy(update={"packages": PackageSupply.model_validate({"from": source})})
        place = tmp_path / cache

        @contextmanager
        def reading(_: Fleet, login: Login, ask: Any) -> Iterator[Any]:
            if facts is None:
                raise Unreachable("no answer", host=login.name)
            yield SimpleNamespace(facts=facts, ask=answer)

        def supplies(*_: Any, **__: Any) -> set[Path]:
            (place / NAME).parent.mkdir(parents=True)
            (place / NAME).write_bytes(b"a wheel")
            return {place / NAME}

        monkeypatch.setattr(Fleet, "session_for_reading", reading)
        monkeypatch.setattr(verb, "supplies", supplies)
        monkeypatch.setattr(verb, "shipment", lambda *_: shipment(host))
        monkeypatch.setattr(verb, "CACHE", place)
        fleet = Fleet(site, Report(console=Console(file=shown, width=400)))
        return verb.bundle(fleet, [host], **{"out": "", "use": "", "sha256": ""} | files)

    return go


def test_a_bundle_is_made_on_one_controller_and_used_on_another(
    run: Callable[..., int], shown: io.StringIO, tmp_path: Path
) -> None:
    file = str(tmp_path / "derpfleet.bundle")
    assert run(out=file) == 0
    assert run(use=file, cache="there") == 0
    assert (tmp_path / "there" / NAME).read_bytes() == b"a wheel"
    made, used = [line for line in shown.getvalue().splitlines() if "sha256" in line]
    assert made == used
    assert "debian 12" in shown.getvalue() and "was not made for" not in shown.getvalue()


def test_packages_of_a_host_without_a_way_out_are_in_it(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "_get", lambda *_: b"a package")
    file = str(tmp_path / "derpfleet.bundle")
    assert run(out=file, source="controller") == 0
    assert run(use=file, cache="there") == 0
    monkeypatch.setenv("DERPFLEET_OFFLINE", "1")
    debs = packages.from_index(BARE, ["nginx"], {}, cache=tmp_path / "there")
    assert [deb.name for deb in debs] == ["nginx"]
    assert packages.packed(debs, cache=tmp_path / "there", progress=print).path.exists()


def test_nothing_is_written_when_a_host_cannot_be_asked(
    run: Callable[..., int], shown: io.StringIO, tmp_path: Path
) -> None:
    assert run(out=str(tmp_path / "x"), facts=None) == 3
    assert run(out=str(tmp_path / "x"), facts=replace(BARE, os_id="plan9", os_like=())) == 1
    assert not (tmp_path / "x").exists()
    assert "no answer" in shown.getvalue() and "its system is not known" in shown.getvalue()


def test_a_host_that_a_bundle_was_not_made_for_is_named_with_what_makes_one(
    run: Callable[..., int], shown: io.StringIO, tmp_path: Path
) -> None:
    verb.write_bundle(tmp_path / "b", cache=tmp_path, files=set(), hosts={"other": "debian 12"})
    assert run(use=str(tmp_path / "b")) == 0
    assert "invoke bundle --out b --host hk1" in shown.getvalue()


def test_an_image_is_not_in_a_bundle_and_that_is_said(
    run: Callable[..., int], shown: io.StringIO, tmp_path: Path
) -> None:
    assert run(case="docker", out=str(tmp_path / "b")) == 0
    assert "docker.archive" in shown.getvalue()


@pytest.mark.parametrize("files", [{}, {"out": "a", "use": "b"}])
@pytest.mark.parametrize("out", ["none/x", ".", "/"])
def test_a_place_that_takes_no_file_is_refused_before_a_host_is_asked(
    run: Callable[..., int], out: str
) -> None:
    with pytest.raises(BundleError, match="cannot be written") as error:
        run(facts=None, out=out)
    assert "folder" in error.value.why and "--out" in error.value.next


def test_a_bundle_is_made_or_used(run: Callable[..., int], files: dict[str, str]) -> None:
    with pytest.raises(DerpfleetError, match="either made or used"):
        run(**files)
