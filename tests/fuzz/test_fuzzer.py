"""Every checked-in case of every fuzz target, a moment of fuzzing, and finds of planted faults."""

import pytest

from relay.http import websocket
from tests.fuzz import fuzzer as fuzz
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_holds(name):
    target = TARGETS[name]
    seeds = fuzz.seeds_of(name)
    assert len(seeds) >= 2
    for case in seeds:
        try:
            target.call(case)
        except target.allowed:
            continue


@pytest.mark.parametrize("name", TARGETS)
def test_a_moment_of_fuzzing(name):
    for seconds in (0.2, 2, 20):  # a busy machine may need longer to get through the seeds
        cases, pairs, finding = fuzz.fuzz(TARGETS[name], seconds, seed=1)
        assert finding is None, finding
        if cases > len(fuzz.seeds_of(name)):
            break
    assert cases > len(fuzz.seeds_of(name)) and pairs > 20


def test_the_fuzzer_finds_a_bug_behind_two_branches():
    def fragile(data):
        side = websocket.WebSocket()
        side.feed(data)
        assert side.closed != websocket.TOO_BIG, "found"

    target = Target("websocket", fragile, [websocket], words=TARGETS["websocket"].words)
    finding = fuzz.fuzz(target, 20, seed=2)[2]
    assert finding is not None and "found" in str(finding)
    with pytest.raises(AssertionError):
        fragile(finding.case)


def test_the_verb(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path / "corpus")
    monkeypatch.setattr(fuzz, "FOUND", tmp_path / "found")
    assert fuzz.main(["proxy", "json", "-seconds", "0.2", "-seed", "7"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("seed 7\n") and out.count("line pairs") == 2
    broken = Target("broken", lambda data: {}[data], [websocket])
    monkeypatch.setitem(TARGETS, "broken", broken)
    assert fuzz.main(["broken", "-seconds", "0.1"]) == 1
    (kept,) = (tmp_path / "found" / "broken").iterdir()
    assert kept.suffix == ".hex" and "KeyError" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        fuzz.main(["nonsense"])
