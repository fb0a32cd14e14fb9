"""Packages of a host that fetches none: named by its own lists, or by a bundle's."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from artefacts import packages
from artefacts.offline import Offline
from artefacts.packages import PackagesError
from engine.facts import Ask, Facts, Output
from fleet.shared import bring_packages
from fleet.shared.bring_packages import bring
from tests.artefacts.test_packages import CONTENT, said
from tests.roles.cases import facts_of, load

NO_LISTS = Output(status=1, stdout="", stderr="E: Unable to locate package nginx\n")


@dataclass
class Answering:
    """A session whose host gives this answer. `asked`: the argvs."""

    answer: Output
    facts: Facts = field(default_factory=lambda: facts_of("bare"))
    asked: list[Any] = field(default_factory=list)

    def ask(self, ask: Ask) -> Facts:
        [(name, argv)] = ask.commands.items()
        self.asked.append(argv)
        return replace(self.facts, commands={name: self.answer})


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(bring_packages, "CACHE", tmp_path)
    monkeypatch.setattr(packages, "_get", lambda *_: CONTENT)
    return tmp_path


def brought(session: Any) -> list[str]:
    host, _, _ = load("bare")
    release = bring(host, session, ["nginx"], lambda _: None)
    with tarfile.open(release.path) as tar:
        return tar.getnames()


def test_the_hosts_own_lists_name_them() -> None:
    session = Answering(Output(status=0, stdout=said(), stderr=""))
    assert len(brought(session)) == 2
    [argv] = session.asked
    assert argv[4:] == ("lacking", "nginx")


def test_a_host_without_lists_uses_those_of_a_bundle(cache: Path) -> None:
    with pytest.raises(PackagesError, match="hk1 cannot name the packages that it lacks") as error:
        brought(Answering(NO_LISTS))
    assert "Unable to locate package nginx" in error.value.why
    assert "invoke bundle --out" in error.value.next
    packages.keep_index(facts_of("bare"), packages.parsed(said()), cache=cache)
    assert len(brought(Answering(NO_LISTS))) == 2


def test_offline_the_host_is_not_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    debs = packages.parsed(said())
    packages.keep_index(facts_of("bare"), debs, cache=cache)
    packages.fetched(debs, cache=cache, progress=print)
    monkeypatch.setenv("DERPFLEET_OFFLINE", "1")
    session = Answering(NO_LISTS)
    assert len(brought(session)) == 2
    assert session.asked == []
    packages.keep_index(facts_of("bare"), [], cache=cache)
    with pytest.raises(Offline, match="the packages nginx of debian 12"):
        brought(session)
