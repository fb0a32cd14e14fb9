"""Send alerts to the webhook of the site file, and remember what was sent."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from control.web import NoWebAnswer, WebQuestion
from engine import cache
from fleet.shared import records
from fleet.shared.fleet import Fleet
from fleet.shared.web import fetch
from inventory.admission_rules import is_in_the_clear
from inventory.errors import DerpfleetError
from inventory.notify import Notify
from inventory.rules import ALERTS
from inventory.secrets import read_secret
from probe.alerts import Alert, Known, Seen, from_json, judged, to_json, unsent

# Narrow: the errors of Python's client repeat a port, host or path that it cannot use.
_URL = r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-~]*)?"


class CannotNotify(DerpfleetError):
    """The webhook did not take the alerts. The next look sends them again."""


def notify(fleet: Fleet, seen: Sequence[Seen]) -> list[Alert]:
    """Send the alerts of this look, and return them. Raises CannotNotify, SecretError."""
    settings = fleet.site.notify
    if settings is None:
        raise CannotNotify(
            "nobody can be notified",
            why=f"{fleet.site.path} has no section notify",
            next="add notify: {url: env:DERPFLEET_WEBHOOK}, or leave --notify out",
        )
    path = fleet.runs / ALERTS
    with cache.locked(path.with_name(f".{ALERTS}.lock")):
        known = _known(path)
        repeat_s = settings.repeat_h * 3600
        then, alerts = judged(known, seen, after=settings.after, repeat_s=repeat_s, now=time.time())
        try:
            if alerts:
                _post(settings, fleet.base, body(alerts, Path(fleet.site.path).name))
        except DerpfleetError:
            then = unsent(known, then, alerts)
            raise
        finally:
            records.keep(fleet.runs, path, to_json(then))
    return alerts


def body(alerts: Sequence[Alert], site: str) -> str:
    """Return one JSON object for all alerts. `text` is what Slack and its like show."""
    sentences = [alert.text for alert in alerts]
    listed = [
        {"host": one.host, "ok": one.ok, "words": one.words, "repeats": one.repeats} for one in alerts
    ]
    return json.dumps({"site": site, "alerts": listed, "text": f"{site}: {'; '.join(sentences)}"})


def _known(path: Path) -> dict[str, Known]:
    """Return the memory; an empty one where there is none that can be read."""
    try:
        return from_json(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _post(settings: Notify, base: Path, text: str) -> None:
    """Post the text. Raises CannotNotify, whose words do not have the URL, and SecretError."""
    url = read_secret(settings.url, base=base).of_form(_URL, "a URL, as https://name/path").reveal()
    next_step = f"look at {settings.url} and at the webhook's own log, then: invoke status --notify"
    if is_in_the_clear(url):
        why = f"{settings.url} is http, so anyone on the way can read it and send alerts of their own"
        raise CannotNotify("the webhook was not called", why=why, next=f"use https in {settings.url}")
    headers = {"Content-Type": "application/json", "User-Agent": "derpfleet"}
    try:
        answer = fetch(WebQuestion(url=url, method="POST", headers=headers, body=text))
    except NoWebAnswer as error:
        raise CannotNotify("the webhook does not answer", why=error.why, next=next_step) from None
    if not 200 <= answer.status < 300:
        raise CannotNotify("the webhook refused", why=f"HTTP {answer.status}", next=next_step)
