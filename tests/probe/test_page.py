"""The status page: all facts are in it, nothing is fetched, and no words of a peer are markup."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from probe.latency import Latencies, Latency
from probe.page import Card, render_page
from probe.past import Entry, entries, line
from probe.proof import LADDER, Proof, Rung

MADE = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
TLS = Rung("tls", "ok", "TLSv1.3", data={"days_left": 61.2, "share_left": 0.68})
PROVED = Proof(
    "hk1",
    "hk1.example.org",
    tuple(TLS if name == "tls" else Rung(name, "ok", "fine", ms=2) for name in LADDER),
    1310,
    "2026-11-22T10:00:00Z",
)
BROKEN = replace(
    PROVED,
    rungs=tuple(
        Rung(n, "failed", "<script>alert(1)</script>", cause="a <b>cause", next="invoke x")
        if n == "probe"
        else r
        for n, r in zip(LADDER, PROVED.rungs, strict=True)
    ),
)
HK1 = Card(
    host="hk1",
    domain="hk1.example.org",
    region_id=900,
    region_code="hkg",
    region_name="Hong Kong",
    flavour="python",
    version="0.1.0",
    clients=3,
    proof=PROVED,
)
SG1 = replace(
    HK1, host="sg1", region_id=901, region_code="sin", region_name="Singapore", proof=BROKEN, clients=None
)
LATENCIES = Latencies(here={"hk1": Latency(34.2, None)}, between={("hk1", "sg1"): 33.0})


@pytest.mark.parametrize("state", ["withdrawn", "drained"])
def test_a_relay_that_was_stopped_on_purpose_is_not_called_broken(state: str) -> None:
    page = render_page([replace(SG1, stopped=state)], LATENCIES, title="site.yml", made=MADE)
    assert f"– {state}" in page
    assert "✗ broken" not in page
    assert replace(HK1, stopped=state).state == "proved"


def test_the_page_has_release_generation_and_what_is_unconfirmed() -> None:
    card = replace(HK1, release="4f9ce47a", generation=12, unconfirmed_since="2026-11-22 14:09")
    page = render_page([card], LATENCIES, title="site.yml", made=MADE)
    assert "<dd>4f9ce47a</dd>" in page
    assert "<dd>12, unconfirmed since 2026-11-22 14:09</dd>" in page
    assert "Generation" not in render_page([HK1], LATENCIES, title="site.yml", made=MADE)


@pytest.mark.parametrize("state", ["withdrawn", "drained"])
def test_a_relay_that_was_stopped_on_purpose_is_broken_since_never(state: str) -> None:
    at = MADE.replace(hour=9)
    card = replace(SG1, stopped=state, past=[Entry(at, False, False, "tcp", 3.0, at)])
    assert card.since == ""
    assert "Broken since" not in render_page([card], LATENCIES, title="site.yml", made=MADE)
    assert replace(card, stopped="").since == "2026-11-22 09:30 UTC"


class Page(HTMLParser):
    """The text of a page, and everything that a browser would fetch or run."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.fetches: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in {"script", "link", "img", "iframe"}:
            self.fetches.append(tag)
        self.fetches += [
            f"{name}={value}"
            for name, value in attrs
            if name in {"src", "href"} and not str(value).startswith("#")
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += " " + " ".join(data.split())


def page(*cards: Card) -> Page:
    return Page(render_page(cards, LATENCIES, title="site.yml", made=MADE))


def test_regions_distances_and_rungs_are_there() -> None:
    shown = page(HK1, SG1)
    assert shown.open == [] and shown.fetches == []
    for words in (
        "sg1 is broken", "2026-11-22 10:30 UTC", "Hong Kong", "region 901 · sin", "34 ms", "33 ms",
        "61 days left", "took 1.3 s", "invoke x",
    ):
        assert words in shown.text
    for title in LADDER.values():
        assert shown.text.count(f" {title} ") >= 2


def test_the_words_of_a_peer_are_text() -> None:
    shown = page(SG1)
    assert "<script>alert(1)</script>" in shown.text
    assert "a <b>cause" in shown.text


@pytest.mark.parametrize(
    ("cards", "headline"),
    [
        ((), "No relays yet"),
        ((HK1,), "The relay is proved: packets pass"),
        ((HK1, replace(HK1, host="fr1")), "Every relay is proved: packets pass"),
        ((HK1, replace(HK1, host="fr1", proof=None)), "1 of 2 relays proved"),
        ((SG1, replace(SG1, host="fr1")), "sg1, fr1 are broken"),
    ],
)
def test_the_headline(cards: tuple[Card, ...], headline: str) -> None:
    assert headline in page(*cards).text


def test_a_relay_has_a_line_of_thirty_days() -> None:
    past = entries(line(PROVED) + line(replace(BROKEN, at="2026-11-21T10:00:00Z")))
    text = render_page([replace(HK1, past=past), SG1], LATENCIES, title="site.yml", made=MADE)
    assert text.count('<div class="days"') == 1
    assert text.count("<i class=") == 30
    assert 'title="2026-11-22: 1 proof"' in text
    assert 'style="--broken:100%" title="2026-11-21: 1 proof, 1 broken"' in text
    assert "hk1: of 2 days with a proof, 1 without a broken one" in text
    assert "<dt>Proved since</dt><dd>2026-11-22 10:00 UTC</dd>" in text
    assert "50.0 %" in text
    assert not Page(text).fetches


def test_a_page_without_a_history_has_no_days() -> None:
    assert "Last 30 days" not in render_page([HK1], LATENCIES, title="site.yml", made=MADE)
