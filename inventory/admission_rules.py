"""Rules about who may use the relay, over one host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from inventory.choices import (
    ADMISSIONS,
    FLAVOURS,
    PROGRAMS,
    RUNNERS,
    Combination,
    admission_of,
    program_of,
    runner_of,
)
from inventory.finding import Finding, Rule
from inventory.model import Host

_SHORT_ADMISSION = ("open", "verify_client_url")  # they imply the word of relay.admission
_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}")


def _one_rule_of_admission(host: Host) -> Iterator[Finding]:
    if host.relay.open and host.relay.verify_client_url:
        message = "the relay is either open or asks verify_client_url: keep one of them"
        yield Finding("relay.open", message, ("relay.verify_client_url",))


def _admission_has_its_keys(host: Host) -> Iterator[Finding]:
    """Check the keys of `relay` against the word of `admission`, which shorter forms may imply."""
    relay, row = host.relay, admission_of(host)
    given = [
        key
        for one in ADMISSIONS.values()
        for key in one.keys
        if key in relay.model_fields_set and getattr(relay, key)
    ]
    own = row.keys if row else _SHORT_ADMISSION
    for key in given:
        if key not in own:
            words = " or ".join(word for word, one in ADMISSIONS.items() if key in one.keys)
            now = relay.admission or "not given"
            message = f"goes with relay.admission {words}, which is {now}: keep one of them"
            yield Finding(f"relay.{key}", message, ("relay.admission",))
    if row and row.needs_key and len({*given} & {*row.keys}) != 1:
        message = f"{relay.admission} needs relay.{' or relay.'.join(row.keys)}: give one"
        yield Finding("relay.admission", message, tuple(f"relay.{key}" for key in row.keys))


def _tailscaled_is_whole(host: Host) -> Iterator[Finding]:
    tailscaled, looked_at = host.relay.tailscaled, ("relay.tailscaled.manage",)
    if tailscaled.manage and not tailscaled.auth_key:
        message = "is missing: a tailscaled of our own joins its tailnet with one, as env:TS_AUTHKEY"
        yield Finding("relay.tailscaled.auth_key", message, looked_at)
    if tailscaled.manage and "socket" in tailscaled.model_fields_set:
        message = "is for a tailscaled that is there already: leave it out, or manage"
        yield Finding("relay.tailscaled.socket", message, looked_at)
    for key in ("auth_key", "login_server"):
        if getattr(tailscaled, key) and not tailscaled.manage:
            message = "is for a tailscaled of our own: set relay.tailscaled.manage to true, or leave it out"
            yield Finding(f"relay.tailscaled.{key}", message, looked_at)


def _program_can_be_told(host: Host) -> Iterator[Finding]:
    row = admission_of(host)
    if row is None or program_of(host).has_prober_keys:
        return
    outside = [name for name, combination in FLAVOURS.items() if _is_outside(combination)]
    if not row.by_derper:
        why, more = f"{host.program} knows no such list", ""
    elif not row.in_container and runner_of(host).in_container:
        why, more = "a container does not reach the host's socket", f", {' or '.join(outside)}"
    else:
        return
    yield Finding(
        "relay.admission",
        f"{host.relay.admission} is not possible with {host.program} under {host.runner}, as {why}: use "
        f"flavour: python{more}, or relay.admission: headscale or url",
        ("relay.program", "relay.under", "flavour"),
    )


def _is_outside(derper: Combination) -> bool:
    """Whether it is derper, without a container."""
    return not PROGRAMS[derper.program].has_prober_keys and not RUNNERS[derper.under].in_container


def _verified_in_secret(host: Host) -> Iterator[Finding]:
    url = host.relay.verify_client_url or ""
    if is_in_the_clear(url) and not host.relay.verify_insecure:
        yield Finding(
            "relay.verify_client_url",
            "is http, so anyone between the relay and that server can let anyone use the relay: use "
            "https, or set relay.verify_insecure to true as well",
            ("relay.verify_insecure",),
        )


def is_in_the_clear(url: str) -> bool:
    """Whether a URL is http and leaves the host."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    return parts.scheme == "http" and not (name in ("localhost", "::1") or _LOOPBACK.fullmatch(name))


RULES: tuple[Rule, ...] = (
    _one_rule_of_admission,
    _admission_has_its_keys,
    _tailscaled_is_whole,
    _program_can_be_told,
    _verified_in_secret,
)
