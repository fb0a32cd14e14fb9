"""The files of `invoke status` for Prometheus. Data in, text out.

They are metrics for node_exporter's textfile collector, in Prometheus' text format 0.0.4, and the
relays that can be scraped, as JSON for `file_sd_configs`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from inventory.choices import flavour_name
from inventory.model import Host
from probe.page import Card
from probe.proof import LADDER

_HELP = {
    "proved": "Whether the relay was proved from outside",
    "failed_rung": "The first broken rung of its proof",
    "withdrawn": "Whether the relay is out of service on purpose",
    "proof_seconds": "Duration of the proof",
    "certificate_seconds": "Seconds until the served certificate ends",
    "certificate_share": "Share of the served certificate's life that is left, 0 to 1",
    "clients": "Clients that are connected",
    "generation": "The newest confirmed state of its host, 0 before the first one",
    "unconfirmed": "Whether its host has changes that nobody has confirmed",
    "rollout_state": "How far the last rollout is: 1 for its state, 0 for the others",
    "checked_timestamp_seconds": "The end of this look at all hosts",
}
ROLLOUT_STATES = ("running", "paused", "silent", "ended")
_OK = ("proved", "reached")


def render(cards: Sequence[Card], *, made: datetime, rollout: str = "") -> str:
    """Return the whole file. `made`: the time of the look, with its time zone.

    `rollout`: how far the site's last rollout is; "" where that is not known.
    """
    samples: dict[str, list[str]] = {name: [] for name in _HELP}
    for card in cards:
        for name, labels, value in _samples(card):
            samples[name].append(f"derpfleet_{name}{{{labels}}} {value:.10g}")
    for state in ROLLOUT_STATES if rollout else ():
        value = int(state == rollout)
        samples["rollout_state"].append(f"derpfleet_rollout_state{{{_labels(state=state)}}} {value}")
    samples["checked_timestamp_seconds"].append(
        f"derpfleet_checked_timestamp_seconds {made.timestamp():.0f}"
    )
    return "".join(
        "\n".join([f"# HELP derpfleet_{name} {_HELP[name]}", f"# TYPE derpfleet_{name} gauge", *lines, ""])
        for name, lines in samples.items()
        if lines
    )


def scrape_targets(hosts: Iterable[Host]) -> str:
    """Return the list of the relays that let others ask for their metrics, at their own names."""
    found = [
        {
            "targets": [f"{host.domain}:{host.ports.metrics}"],
            "labels": {"host": host.name, "region": host.region.code, "flavour": flavour_name(host)},
        }
        for host in hosts
        if host.managed and host.metrics.allow
    ]
    return json.dumps(found, indent=1) + "\n"


def _samples(card: Card) -> Iterator[tuple[str, str, float]]:
    """Yield the name, the labels and the value of each sample of a relay."""
    of_host = _labels(host=card.host, region=card.region_code)
    yield "proved", of_host, card.state in _OK
    yield "withdrawn", of_host, card.state == card.stopped
    if card.proof is not None:
        yield "proof_seconds", of_host, card.proof.ms / 1000
        broken = card.proof.failed_rung if card.state == "broken" else None
        for rung in LADDER:
            is_it = broken is not None and broken.name == rung
            yield "failed_rung", _labels(host=card.host, rung=rung), is_it
    if card.certificate is not None:
        figures = (("certificate_seconds", "days_left", 86400), ("certificate_share", "share_left", 1))
        for figure, key, unit in figures:
            if isinstance(value := card.certificate.data.get(key), int | float):
                yield figure, of_host, value * unit
    if card.clients is not None:
        yield "clients", of_host, card.clients
    if card.generation or card.unconfirmed_since:  # else its host may not have answered
        yield "generation", of_host, card.generation
        yield "unconfirmed", of_host, bool(card.unconfirmed_since)


def _labels(**labels: str) -> str:
    """Return labels in the text format. Names of hosts and codes of regions need no escapes."""
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
