"""Rules over the keys of `certificate`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from inventory.auto_source import explain_source
from inventory.choices import SHORT_LIVED, challenge_of, front_of, provider_of, ships_certbot, source_of
from inventory.finding import Finding, Rule
from inventory.model import Host

_OF_ORDERS = {"names", "profile", "challenge", "dns", "stop", "account"}


def _letsencrypt_asks_on_80(host: Host) -> Iterator[Finding]:
    if source_of(host).is_letsencrypt and host.ports.http != 80 and not challenge_of(host).by_zone:
        yield Finding(
            "ports.http",
            f"Let's Encrypt asks on port 80, not on {host.ports.http}. Where 80 is forwarded to it, "
            "use certificate.source: acme with Let's Encrypt's directory as server",
            ("certificate.source", "certificate.challenge"),
        )


def _certificate_is_whole(host: Host) -> Iterator[Finding]:
    certificate, source, looked_at = host.certificate, source_of(host), ("certificate.source",)
    if source.is_letsencrypt and not certificate.agree_terms:
        message = "must be true: an account at Let's Encrypt needs your agreement to its terms"
        yield Finding("certificate.agree_terms", message, looked_at)
    if source.is_acme and not source.directory and not certificate.server:
        message = "is missing: source acme needs the ACME directory's URL"
        yield Finding("certificate.server", message, looked_at)
    if source.needs_files:
        for key in ("fullchain", "key"):
            if not getattr(certificate, key):
                message = "is missing: source manual needs fullchain and key"
                yield Finding(f"certificate.{key}", message, looked_at)
    for key in ("fullchain_path", "key_path"):
        if source.is_on_host and not getattr(certificate, key):
            message = f"is missing: source {host.source} needs fullchain_path and key_path"
            yield Finding(f"certificate.{key}", message, looked_at)


def _names_can_be_proved(host: Host) -> Iterator[Finding]:
    certificate, by_zone = host.certificate, challenge_of(host).by_zone
    if not source_of(host).is_acme:
        for key in sorted(certificate.model_fields_set & _OF_ORDERS):
            message = f"has no effect: source {host.source} orders no certificate. Remove it" + _why(host)
            yield Finding(f"certificate.{key}", message, ("certificate.source",))
        return
    for index, name in enumerate(certificate.names):
        if name.startswith("*") and not by_zone:
            message = f"'{name}' is a wildcard, which is proved in its DNS zone only: use challenge: dns"
            yield Finding(f"certificate.names.{index}", message, ("certificate.challenge",))
        elif name == host.domain or name in certificate.names[:index]:
            yield Finding(f"certificate.names.{index}", f"'{name}' is there twice: keep one of them")
    for key in ("names", "profile", "challenge"):
        if not ships_certbot(host) and key in certificate.model_fields_set:
            message = "needs the shipped certbot, as the distribution's may be too old: remove certbot"
            yield Finding(f"certificate.{key}", message, ("certificate.certbot",))


def _dns_is_whole(host: Host) -> Iterator[Finding]:
    dns, by_zone = host.certificate.dns, challenge_of(host).by_zone
    if not source_of(host).is_acme:
        return
    if by_zone and dns is None:
        message = "is missing: challenge dns needs the provider of the zone, and a secret for it"
        yield Finding("certificate.dns", message, ("certificate.challenge",))
    if dns is None:
        return
    provider, looked_at = provider_of(dns), ("certificate.dns.provider",)
    if not by_zone:
        message = "has no effect: set certificate.challenge to dns, or remove this key"
        yield Finding("certificate.dns", message, ("certificate.challenge",))
    for key in provider.needs:
        if getattr(dns, key) is None:
            message = f"is missing: {dns.provider} needs {' and '.join(provider.needs)}"
            yield Finding(f"certificate.dns.{key}", message, looked_at)
    known = {"provider", "secret", "propagation_s", *provider.needs, *provider.may_have}
    for key in sorted(dns.model_fields_set - known):
        message = f"has no effect: {dns.provider} does not know it. Remove it"
        yield Finding(f"certificate.dns.{key}", message, looked_at)
    if by_zone and host.is_address:
        message = f"'{host.domain}' is an address, which is proved on the host only: use challenge: http"
        yield Finding("certificate.challenge", message, ("domain",))


def _stop_is_whole(host: Host) -> Iterator[Finding]:
    stop, stops, front = host.certificate.stop, challenge_of(host).stops, front_of(host)
    if not source_of(host).is_acme:
        return
    if stops and stop is None:
        message = "is missing: the service that has the http port, such as apache2.service"
        yield Finding("certificate.stop", message, ("certificate.challenge",))
    if stop is not None and not stops:
        message = "has no effect: set certificate.challenge to standalone, or remove this key"
        yield Finding("certificate.stop", message, ("certificate.challenge",))
    if stops and front.answers_http and not front.is_others:
        yield Finding(
            "certificate.challenge",
            f"is not needed: {front.program} answers challenges while it runs. Remove this key",
            ("front",),
        )


def _address_needs_a_pin(host: Host) -> Iterator[Finding]:
    if not host.is_address:
        return
    if not re.fullmatch(r"((25[0-5]|2[0-4]\d|1?\d?\d)(\.(?!$)|$)){4}", host.domain):
        yield Finding("domain", f"'{host.domain}' is neither a host name nor an IPv4 address")
    elif source_of(host).is_acme and host.certificate.profile != SHORT_LIVED:
        yield Finding(
            "domain",
            f"'{host.domain}' is an address, for which {host.source} gives short-lived "
            f"certificates only: set certificate.profile to {SHORT_LIVED}, or use "
            "certificate.source: self-signed",
            ("certificate.source", "certificate.profile"),
        )


def _why(host: Host) -> str:
    """Return the reason for the source after a sentence, where the site file does not name it."""
    sentence = explain_source(host)
    return f" ({sentence})" if sentence else ""


RULES: tuple[Rule, ...] = (
    _letsencrypt_asks_on_80,
    _certificate_is_whole,
    _names_can_be_proved,
    _dns_is_whole,
    _stop_is_whole,
    _address_needs_a_pin,
)
