"""`invoke status`: a table for people, JSON for machines, and a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from control.served import Served
from engine import cache
from engine.generations import moment
from fleet.shared import past
from fleet.shared.control_server import control_server
from fleet.shared.errors import CannotWrite
from fleet.shared.fleet import Fleet
from fleet.shared.host_status import HostStatus, read_status
from fleet.shared.last_rollout import last_progress
from fleet.shared.notify import notify
from fleet.shared.prove import climb, targets
from inventory.choices import flavour_name
from inventory.model import Host
from probe import prometheus
from probe.alerts import Seen
from probe.derpmap import with_map
from probe.latency import Latencies, measure_all
from probe.page import Card, render_page
from probe.past import Entry
from probe.proof import Proof, Rung

# The columns in the order in which a narrow terminal keeps them, and that of the table.
_WANTED = (
    *("host", "proof", "certificate", "since", "clients", "region", "version", "last deploy", "flavour"),
)
_TITLES = (
    *("host", "region", "flavour", "version", "proof", "since", "certificate", "clients", "last deploy"),
)


def status(
    fleet: Fleet,
    hosts: Sequence[Host],
    *,
    html: Path | None = None,
    textfile: Path | None = None,
    targets_file: Path | None = None,
    alert: bool = False,
) -> int:
    """Prove and ask all hosts at once, and show a table.

    `html`, `textfile`, `targets_file`: to be written, too. `alert`: tell the site's webhook.
    Returns the exit code: 0 when every host is proved, or stopped on purpose. Raises CannotWrite,
    CannotNotify.
    """
    wanted = targets(fleet, hosts)
    said: dict[str, HostStatus] = {}
    proofs: list[Proof] = []
    served: list[Served] = []

    def see(host: Host) -> None:
        said[host.name] = read_status(fleet, host, hosts)

    fleet.report.doing("site", "asking and proving")
    work: list[Callable[[], object]] = [
        lambda: proofs.extend(climb(fleet, hosts, wanted)),
        lambda: served.append(control_server(fleet).served()),
        *(partial(see, host) for host in hosts),
    ]
    fleet.parallel.each(work, lambda one: one())
    fleet.report.doing("site", "")
    whole = {one.name: with_map(proof, one, served[0]) for one, proof in zip(wanted, proofs, strict=True)}
    kept = {
        name: past.add(fleet, name, proof)
        for name, proof in whole.items()
        if proof.ok or not said[name].state
    }
    cards = [_card(host, said[host.name], whole[host.name], kept.get(host.name)) for host in hosts]
    for card in cards:
        fleet.report.emit(event="status", **_row(card, said[card.host]))
    if not fleet.report.json_lines:
        console = fleet.report.console
        table, left = _fitting(cards, console)
        console.print(table)
        if left:
            fleet.report.say(f"too narrow for: {', '.join(left)} (--json has all)")
    for each in said.values():
        if each.trouble is not None:
            fleet.report.failure(each.trouble)
    if html is not None:
        _write_page(fleet, cards, Latencies(measure_all(wanted), _between(said)), html)
    if textfile is not None:
        write(textfile, prometheus.render(cards, made=datetime.now(UTC), rollout=last_progress(fleet) or ""))
    if targets_file is not None:
        _write_targets(fleet, hosts, targets_file)
    if alert:
        for one in notify(fleet, [_seen(card) for card in cards]):
            fleet.report.line(one.host, "told", one.text)
    return 0 if all(card.state not in ("broken", "unknown") for card in cards) else 1


def _between(said: Mapping[str, HostStatus]) -> dict[tuple[str, str], float]:
    """Return the distances in ms from host to host."""
    return {(start, end): ms for start, one in said.items() for end, ms in one.distances_ms.items()}


def _write_page(fleet: Fleet, cards: Sequence[Card], latencies: Latencies, path: Path) -> None:
    """Write the page, with each relay's history."""
    cards = [replace(card, past=past.entries(fleet, card.host)) for card in cards]
    write(path, render_page(cards, latencies, title=Path(fleet.site.path).name, made=datetime.now(UTC)))
    fleet.report.say(f"page: {path}")


def _write_targets(fleet: Fleet, hosts: Sequence[Host], path: Path) -> None:
    """Write the relays that Prometheus can scrape, and say when there are none."""
    write(path, prometheus.scrape_targets(hosts))
    if not any(host.metrics.allow for host in hosts):
        fleet.report.warning("site", f"{path} is empty: no host has metrics.allow")


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, also while another program reads it. Raises CannotWrite."""
    try:
        # A host's text may hold half a character.
        cache.write(path, text.encode(errors="replace"))
    except OSError as error:
        raise CannotWrite(
            f"{path} cannot be written", why=error.strerror or "", next="give another place for it"
        ) from None


def _seen(card: Card) -> Seen:
    """Return what an alert is about. One that was stopped on purpose is as it should be."""
    return Seen(card.host, card.state not in ("broken", "unknown"), _proof_words(card))


def _card(host: Host, seen: HostStatus, proof: Proof, kept: Entry | None) -> Card:
    return Card(
        host=host.name,
        domain=host.domain,
        region_id=host.region.id,
        region_code=host.region.code,
        region_name=host.region.name,
        flavour=flavour_name(host) if host.managed else "not managed",
        version=seen.version,
        release=seen.release,
        clients=seen.clients,
        last_deploy=seen.last_deploy,
        generation=seen.generation,
        generation_since=moment(seen.generation_since) if seen.generation_since else "",
        unconfirmed_since=moment(seen.unconfirmed.since) if seen.unconfirmed.plan else "",
        stopped=seen.state or "",
        proof=proof,
        past=[kept] if kept else [],
    )


def days_left(card: Card) -> float | None:
    """Return the days that the served certificate is still valid, or None when none was seen."""
    days = card.certificate.data.get("days_left") if card.certificate else None
    return float(days) if days is not None else None


def _proof_words(card: Card) -> str:
    broken = _broken(card)
    return f"BROKEN: {broken.title}" if broken else card.state


def _broken(card: Card) -> Rung | None:
    """Return the first broken rung of a relay that was not stopped on purpose."""
    return card.proof.failed_rung if card.proof and card.state == "broken" else None


def _row(card: Card, seen: HostStatus) -> Mapping[str, object]:
    broken = _broken(card)
    return {
        "host": card.host,
        "region": card.region_id,
        "flavour": card.flavour,
        "version": card.version,
        "release": card.release,
        "proof": card.state,
        "broken": broken.name if broken else None,
        "since": card.since or None,
        "certificate_days": days_left(card),
        "clients": card.clients,
        "last_deploy": card.last_deploy,
        "generation": card.generation or None,
        "generation_since": seen.generation_since or None,
        "unconfirmed_since": seen.unconfirmed.since if seen.unconfirmed.plan else None,
        "trouble": seen.trouble.what if seen.trouble else None,
    }


def _fitting(cards: Sequence[Card], console: Console) -> tuple[Table, Sequence[str]]:
    """Return the table with the columns that there is room for, and the titles of the others.

    Host and proof are always there.
    """
    unbound = console.options.update(max_width=1000)  # else no table is wider than the terminal
    for count in range(len(_WANTED), 2, -1):
        table = _table(cards, _WANTED[:count])
        if console.measure(table, options=unbound).maximum <= console.width:
            return table, _WANTED[count:]
    return _table(cards, _WANTED[:2]), _WANTED[2:]


def _table(cards: Sequence[Card], shown: Sequence[str] = _TITLES) -> Table:
    titles = [title for title in _TITLES if title in shown]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for title in titles:
        justify: Literal["right", "left"] = "right" if title in ("certificate", "clients") else "left"
        table.add_column(title, justify=justify, no_wrap=title != "proof")
    for card in cards:
        cells = _cells(card)
        table.add_row(*(cells[title] for title in titles))
    return table


_COLOURS = {
    "proved": "green",
    "reached": "green",
    "broken": "bold red",
    "withdrawn": "dim",
    "drained": "yellow",
    "unknown": "dim",
}


def _version(card: Card) -> str:
    """Return the version with the first 8 digits of the release, as `0.1.0 4f9ce47a`."""
    return f"{card.version[:24]} {card.release.removeprefix('sha256:')[:8]}".strip()


def _generation(card: Card) -> str:
    return f"(in force: generation {card.confirmed})" if card.confirmed else ""


def _cells(card: Card) -> Mapping[str, str | Text]:
    """Return the cells of a host by the titles of their columns."""
    days = days_left(card)
    return {
        "host": card.host,
        "region": f"{card.region_code} ({card.region_id})",
        "flavour": card.flavour,
        "version": Text(_version(card) or "-"),  # the host's text, which must not act as markup
        "proof": Text(_proof_words(card), style=_COLOURS[card.state]),
        "since": card.since.removesuffix(" UTC") or "-",
        "certificate": f"{days:.0f} days" if days is not None else "-",
        "clients": str(card.clients) if card.clients is not None else "-",
        "last deploy": f"{card.last_deploy} {_generation(card)}".strip() or "-",
    }
