"""The status page: one self-contained HTML file with the regions, their distances and their
ladders. Data in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from probe.latency import Latencies, rows
from probe.past import TIME, Entry, days
from probe.proof import Proof, Rung, duration


@dataclass(frozen=True, kw_only=True)
class Card:
    """One relay.

    `version`, `release`, `last_deploy` and `clients` are empty or None when unknown; `proof` is
    None before the first one. `generation`: the newest confirmed state, 0 without one;
    `generation_since`: when it was confirmed, which the last deploy may not have done.
    `unconfirmed_since`: of the changes after it, or "". `stopped`: withdrawn or drained, when its
    host says so. `past`: its kept proofs, oldest first; only the last one matters where there is no
    page.
    """

    host: str
    domain: str
    region_id: int
    region_code: str
    region_name: str
    flavour: str
    version: str = ""
    release: str = ""
    clients: int | None = None
    last_deploy: str = ""
    generation: int = 0
    generation_since: str = ""
    unconfirmed_since: str = ""
    stopped: str = ""
    proof: Proof | None = None
    past: Sequence[Entry] = ()

    @property
    def since(self) -> str:
        """Since when the relay is as it is now; "" without a history, and for a stopped one."""
        has = self.past and self.state != self.stopped
        return self.past[-1].since.strftime(TIME) if has else ""

    @property
    def held(self) -> str:
        """The share of the proofs in its history that held, such as `99.8 %`; "" without one."""
        held = sum(entry.ok for entry in self.past)
        share = 100 * held / len(self.past) if self.past else 0.0
        whole = held == len(self.past)
        return "" if not self.past else "100 %" if whole else f"{min(share, 99.9):.1f} %"

    @property
    def state(self) -> str:
        """proved, reached (only that packets pass is unproved), broken, withdrawn or drained
        (stopped on purpose) or unknown."""
        if self.proof is None:
            return "unknown"
        if not self.proof.ok:
            return self.stopped or "broken"
        return "proved" if self.proof.packets_passed else "reached"

    @property
    def confirmed(self) -> str:
        """The newest generation with its time, and since when there are changes that nobody
        confirmed; or ""."""
        of = f" of {self.generation_since}" if self.generation_since else ""
        newest = f"{self.generation}{of}" if self.generation else ""
        since = f"unconfirmed since {self.unconfirmed_since}" if self.unconfirmed_since else ""
        return ", ".join(filter(None, (newest, since)))

    @property
    def certificate(self) -> Rung | None:
        """The TLS rung, when it holds."""
        rung = self.proof["tls"] if self.proof else None
        return rung if rung and rung.status == "ok" else None

    @property
    def proved_at(self) -> str:
        """When the proof began."""
        return datetime.fromisoformat(self.proof.at).strftime(TIME) if self.proof else ""


def render_page(cards: Sequence[Card], latencies: Latencies, *, title: str, made: datetime) -> str:
    """Return the whole page.

    `title` names the site; `made` is the time of making, with its time zone.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["duration"] = duration
    places = {"": "this controller"} | {card.host: card.region_name for card in cards}
    return templates.get_template("page.html").render(
        cards=cards,
        places=places,
        matrix=rows(latencies, [card.host for card in cards]),
        shade=_shade(latencies),
        title=title,
        made=made.astimezone(UTC).strftime(TIME),
        proved=sum(card.state == "proved" for card in cards),
        month={card.host: list(days(card.past, made.astimezone(UTC).date())) for card in cards if card.past},
        broken=[card for card in cards if card.state == "broken"],
    )


def _shade(latencies: Latencies) -> object:
    """Return a function from a distance to its cell's darkness, 0 to 100: the share of the page's
    longest."""
    known = [each.ms for each in latencies.here.values() if each.ms is not None] + list(
        latencies.between.values()
    )
    most = max(known, default=1.0) or 1.0
    return lambda value: round(100 * min(value / most, 1.0))
