"""The keys that let the proof in: public ones at our relay, a mesh key only at Go's derper."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from artefacts.image import ImageError
from engine.report import Report
from fleet.shared.fleet import Fleet
from fleet.shared.prove import prover, targets
from inventory.model import Host, Region, Relay, Site
from inventory.secrets import SecretError
from probe.keys import Prover, ProverKeyError

IMAGE = "derper@sha256:" + "1" * 64


@pytest.fixture
def keys_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("fleet.shared.records.RUNS", tmp_path / ".runs")

    def keys_of(
        name: str = "hk1", *, ref: str | None = None, derper: str = "", **fields: object
    ) -> Prover:
        host = Host(
            name=name,
            domain=f"{name}.example.org",
            region=Region(id=900, code="hkg", name="Hong Kong"),
            relay=Relay(verify_client_url="https://hs.example.org/verify"),
            **fields,
        )
        site = Site(
            path=str(tmp_path / "site.yml"),
            hosts={name: host},
            known_hosts=str(tmp_path / "known_hosts"),
            prover=ref,
        )
        fleet = Fleet(site, Report(console=Console(file=io.StringIO())))
        found = prover(fleet, host, derper)
        (target,) = targets(fleet, [host], derper=derper)
        assert target.prover and target.prover.public == found.public
        revealed = [key and key.reveal() for key in (target.prover.mesh_key, found.mesh_key)]
        assert revealed[0] == revealed[1]
        return found

    return keys_of


def mesh_key(prover: Prover) -> str:
    assert prover.mesh_key is not None
    return prover.mesh_key.reveal()


def test_our_relay_gets_no_mesh_key(keys_of: Any) -> None:
    assert keys_of().mesh_key is None
    assert keys_of().public == keys_of("sg1").public


def test_a_derper_has_a_mesh_key_that_is_new_with_its_image(keys_of: Any, tmp_path: Path) -> None:
    archive = tmp_path / "derper.tar"
    archive.write_bytes(b"one")
    shipped = {"flavour": "docker", "docker": {"archive": str(archive)}}
    first = mesh_key(keys_of(**shipped))
    assert first == mesh_key(keys_of(**shipped))
    archive.write_bytes(b"two, longer")
    others = [
        mesh_key(keys_of(**shipped)),
        mesh_key(keys_of("sg1", **shipped)),
        mesh_key(keys_of(flavour="docker", docker={"image": IMAGE})),
    ]
    assert len({first, *others}) == 4


def test_a_host_may_have_the_mesh_key_of_another_derper_than_the_site_files(keys_of: Any) -> None:
    other = IMAGE.replace("1", "2")
    named = keys_of(flavour="docker", docker={"image": other})
    assert mesh_key(keys_of(**DERPER, derper=other)) == mesh_key(named)
    assert mesh_key(keys_of(**DERPER)) != mesh_key(named)
    assert keys_of(derper=other).mesh_key is None  # our relay needs none


def test_an_archive_that_is_gone_is_reported(keys_of: Any, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.tar")
    with pytest.raises(ImageError, match="cannot be read") as error:
        keys_of(flavour="docker", docker={"archive": gone})
    assert gone in str(error.value) and error.value.next


DERPER = {"flavour": "docker", "docker": {"image": IMAGE}}


@pytest.mark.parametrize("ref", ["env:TEST_PROVER", "file:kept.json", "cmd:cat kept.json"])
def test_a_fresh_controller_with_the_same_keys_changes_none(
    keys_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ref: str
) -> None:
    first = keys_of(**DERPER)
    made = tmp_path / ".runs" / tmp_path.relative_to("/") / "site.yml" / "prover.json"
    made.rename(tmp_path / "kept.json")
    monkeypatch.setenv("TEST_PROVER", (tmp_path / "kept.json").read_text())
    again = keys_of(ref=ref, **DERPER)
    assert (again.public, mesh_key(again)) == (first.public, mesh_key(first))
    assert not made.exists()
    assert keys_of().public != first.public


@pytest.mark.parametrize("text", ["secret words", "[]", '{"PrivateKeys": ["privkey:ab"]}', "[" * 99999])
def test_keys_that_are_none_are_refused_and_not_shown(
    keys_of: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("TEST_PROVER", text)
    with pytest.raises(ProverKeyError, match="does not hold two keys") as error:
        keys_of(ref="env:TEST_PROVER")
    shown = f"{error.value.what} {error.value.where} {error.value.why} {error.value.next}"
    assert "prover: env:TEST_PROVER" in shown
    assert text not in shown


def test_keys_that_are_not_there_are_no_reason_to_make_others(keys_of: Any) -> None:
    with pytest.raises(SecretError, match="env:NO_SUCH_PROVER") as error:
        keys_of(ref="env:NO_SUCH_PROVER")
    assert error.value.exit_code == 4
