"""Reasons and counters are closed sets: documented, used, and safe from typos."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.admission.admission import AllowFileCheck, TailscaledCheck, UrlCheck
from relay.core import counts, reasons
from relay.core.counts import COUNTERS, Counts, Labelled, StunCounts
from relay.core.reasons import REVOKED_BY, Answer, Breach, Close, Down, Drop, Reason, Refusal
from relay.observe import metrics

RELAY = Path(reasons.__file__).parents[1]
SETS = (Breach, Refusal, Close, Answer, Drop, Down)
MEMBERS = [member for members in SETS for member in members]
# Labels that derper has, and nothing here counts.
DERPERS = {Drop.QUEUE_TAIL, Drop.WRITE_ERROR, Drop.DUP_CLIENT}
# Words of other things, too: an attribute of links and WebSockets, the word for systemd and for the
# log.
ORDINARY = {"closed", "draining"}


def trees(*but: str) -> Iterator[ast.AST]:
    """Yield the syntax tree of each of the relay's modules but these."""
    paths = sorted(RELAY.rglob("*.py"))
    assert paths
    yield from (ast.parse(path.read_text()) for path in paths if str(path.relative_to(RELAY)) not in but)


def used(*but: str) -> set[str]:
    """Return every `Name.ATTRIBUTE` of the relay's modules but these."""
    nodes = (node for tree in trees(*but) for node in ast.walk(tree))
    return {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}


def spelt(tree: ast.AST) -> set[str]:
    """Return the string constants of a module, and the beginnings of its f-strings."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("member", MEMBERS)
def test_every_reason_is_a_label_with_its_meaning_in_one_line(member: Reason) -> None:
    assert re.fullmatch("[a-z_]+", member)
    assert str(member) == f"{member}" == member.value == member.name.lower()
    assert re.fullmatch(r"[^\n]{10,110}[^\n.]", member.meaning), member.meaning


@pytest.mark.parametrize(
    "shown_together", [(Refusal, Breach, Answer), (Close, Breach), (Answer,), (Drop,), (Down,)]
)
def test_no_two_reasons_of_a_metric_have_one_label_or_one_meaning(
    shown_together: tuple[type[Reason], ...],
) -> None:
    members = [member for members in shown_together for member in members.__members__.values()]
    assert (
        len({member.value for member in members})
        == len({member.meaning for member in members})
        == len(members)
    )


def test_every_reason_is_used() -> None:
    wanted = {f"{type(member).__name__}.{member.name}" for member in MEMBERS if member not in DERPERS}
    tables = {
        f"{type(member).__name__}.{member.name}"
        for table in (REVOKED_BY, reasons.CLOSED_IN)
        for member in table.values()
    }
    assert wanted - tables <= used("core/reasons.py")
    assert {"REVOKED_BY", "CLOSED_IN"} <= {
        node.id for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Name)
    }


def test_no_reason_is_spelt_elsewhere() -> None:
    """Nor put together at run time: an f-string's beginnings are among its constants."""
    labels = {member.value for member in MEMBERS if member not in DERPERS}
    beginnings = {label[: at + 1] for label in labels for at, letter in enumerate(label) if letter == "_"}
    found = {text for tree in trees("core/reasons.py") for text in spelt(tree)}
    assert found & (labels | beginnings) == ORDINARY


def test_every_counter_has_a_metric_with_help_and_is_counted() -> None:
    assert set(metrics.COUNTERS) == set(COUNTERS) - {"packets_received_disco"}
    assert all(text for _, text in metrics.COUNTERS.values())
    assert len({name for name, _ in metrics.COUNTERS.values()}) == len(metrics.COUNTERS)
    counted = {name.rpartition(".")[2] for name in used("core/counts.py")}
    assert {*COUNTERS, *StunCounts.__slots__} <= counted


def test_a_typo_makes_no_new_counter() -> None:
    with pytest.raises(AttributeError):
        Counts().acepts += 1  # type: ignore[attr-defined]  # the typo is the test
    with pytest.raises(AttributeError):
        StunCounts().succes += 1  # type: ignore[attr-defined]  # as above
    refusals = Labelled[Refusal | Breach](Refusal, Breach)
    with pytest.raises(KeyError):
        refusals.add("bad_bocks")  # type: ignore[arg-type]  # as above
    refusals.add(Breach.BAD_BOX)
    refusals.add(Refusal.WEBSOCKET_CLOSED, 1001)
    refusals.add(Breach.BAD_BOX)
    assert refusals.by_label() == {"bad_box": 2, "websocket_closed_1001": 1}


def test_counters_of_processes_add_up() -> None:
    total = Counts(accepts=1, writes=2)
    total.add(Counts(accepts=3, got_ping=1))
    assert total == Counts(accepts=4, writes=2, got_ping=1)
    assert set(COUNTERS) == set(Counts.__slots__) == {each.name for each in counts.fields(Counts)}


def test_a_reason_hashes_as_its_label() -> None:
    """Dropped packets are counted under it, and an Enum's own hash is a call into Python."""
    assert Drop.__hash__ is str.__hash__


def test_every_lost_admission_has_a_reason() -> None:
    """A clear answer that refuses ends a connection.

    Without a reason for that, the recheck would fail.
    """
    refuse = {
        answer
        for check in (AllowFileCheck, UrlCheck, TailscaledCheck)
        for answer in Answer
        if f"Verdict(False, Answer.{answer.name})" in inspect.getsource(check)
    }
    assert refuse == set(REVOKED_BY)
    assert all(close == f"revoked_{answer}" for answer, close in REVOKED_BY.items())
