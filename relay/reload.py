"""The settings that SIGHUP reads again: the certificate and the clients' limits."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

from relay.clients import Clients
from relay.config import Config
from relay.core.bucket import RateConfig, parse_rate_config
from relay.io.tls import make_server_context
from relay.keys import meta_certificate, self_signed
from relay.keys.certificate import CertInfo, first_certificate, parse_certificate
from relay.log import Log


class Reloader:
    """The settings that may change while the relay runs.

    `context` is for the next connection over TLS.
    """

    def __init__(self, config: Config, clients: Clients, log: Log) -> None:
        self.context: ssl.SSLContext | None = None
        self.certificate: CertInfo | None = None
        self._config = config
        self._clients = clients
        self._log = log
        self._meta_certificate = meta_certificate.pem_of(
            meta_certificate.new_meta_cert(clients.key.public, time.time())
        )

    def load(self) -> None:
        """Read everything for the first time, and make a certificate where the flags ask for one.

        Raises OSError, ValueError.
        """
        config = self._config
        if config.serve_tls:
            if self_signed.ensure_self_signed(config.cert_dir, config.hostname, time.time()):
                self._log.info("made a self-signed certificate")
            self._load_certificate()
            if self_signed.is_ip(config.hostname):
                self._log_pin()
        if config.rate_config:
            self._load_limits()

    def reload(self) -> None:
        """Reload certificate and limits independently. One that cannot be read stays as it was."""
        if self._config.serve_tls:
            self._reload("certificate", self._load_certificate)
        if self._config.rate_config:
            self._reload("limits", self._load_limits)

    def _reload(self, part: str, read: Callable[[], None]) -> None:
        tally = self._clients.tally
        try:
            read()
        except (OSError, ValueError) as error:
            tally.reload_failures.add(part)
            self._log.error("reload failed, the old one stays in force", part=part, error=error)
        else:
            tally.reloads.add(part)
            self._log.info("reloaded", part=part)

    def _load_certificate(self) -> None:
        """Load the certificate from disk.

        Raises OSError, and ValueError if it is not for this relay's name.
        """
        chain, key = self_signed.cert_paths(self._config.cert_dir, self._config.hostname)
        certificate = parse_certificate(first_certificate(chain.read_text("ascii")))
        if not certificate.is_for(self._config.hostname):
            raise ValueError(
                f"{chain} is for {', '.join(certificate.names) or 'no name'}, not for {self._config.hostname}"
            )
        self.context = make_server_context(chain, key, self._meta_certificate)
        self.certificate = certificate

    def _log_pin(self) -> None:
        chain, _ = self_signed.cert_paths(self._config.cert_dir, self._config.hostname)
        pin = self_signed.pin_of(chain.read_text("ascii"))
        self._log.info(
            "clients that pin this certificate need this DERP map node",
            node=self_signed.map_node(self._config.hostname, pin),
        )

    def _load_limits(self) -> None:
        self._clients.limit(_read_rate_config(self._config.rate_config))


def _read_rate_config(path: str) -> RateConfig:
    try:
        return parse_rate_config(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"rate config {path} {error}") from None
