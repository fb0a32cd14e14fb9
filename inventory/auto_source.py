"""The source of the certificate that a word of the site file stands for, and why. Pure.

`auto` depends on the site file alone. Clients may know a certificate by its pin, so a host must not
get another kind of certificate because something did not answer once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from inventory.choices import SHORT_LIVED, SourceName, candidates_of, challenge_of, front_of

if TYPE_CHECKING:  # the model asks this module
    from inventory.model import Host


class ChosenSource(NamedTuple):
    """A source, and why it fits the rest of the site file; "" where the site file names it."""

    source: SourceName
    why: str


def chosen_source(host: Host) -> ChosenSource:
    """Return the first candidate of the host's word that fits. The last fits if no other does."""
    candidates = candidates_of(host)
    if len(candidates) == 1:
        return ChosenSource(candidates[0], "")
    return next(ChosenSource(name, why) for name in candidates if (why := _FITS[name](host)))


def explain_source(host: Host) -> str:
    """Return a sentence about the source that was chosen, or "" where the site file names it."""
    source, why = chosen_source(host)
    return f"certificate.source {host.certificate.source} is {source} here: {why}" if why else ""


def _manual(host: Host) -> str:
    certificate = host.certificate
    return "fullchain and key are set" if certificate.fullchain and certificate.key else ""


def _on_host(host: Host) -> str:
    certificate = host.certificate
    is_named = certificate.fullchain_path and certificate.key_path
    return "fullchain_path and key_path are set" if is_named else ""


def _front(host: Host) -> str:
    front = front_of(host)
    has_own = front.is_others and front.terminates_tls
    return "your front terminates TLS, with a certificate of its own" if has_own else ""


def _acme(host: Host) -> str:
    return "server is set" if host.certificate.server else ""


def _letsencrypt(host: Host) -> str:
    if _no_letsencrypt(host):
        return ""
    where = "in its DNS zone" if challenge_of(host).by_zone else "on port 80"
    return f"its terms are accepted, and {host.domain} can be proved {where}"


def _no_letsencrypt(host: Host) -> str:
    certificate = host.certificate
    if not certificate.agree_terms:
        return "Let's Encrypt needs agree_terms: true"
    if host.ports.http != 80 and not challenge_of(host).by_zone:
        return f"Let's Encrypt asks on port 80, and ports.http is {host.ports.http}"
    if host.is_address and certificate.profile != SHORT_LIVED:
        return f"{host.domain} is an address, for which Let's Encrypt needs profile: {SHORT_LIVED}"
    return ""


# Why a candidate fits, or "" when it does not.
_FITS: Mapping[SourceName, Callable[[Host], str]] = {
    "manual": _manual,
    "on-host": _on_host,
    "front": _front,
    "acme": _acme,
    "letsencrypt": _letsencrypt,
    "self-signed": _no_letsencrypt,
}
