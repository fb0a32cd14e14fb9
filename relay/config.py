"""The relay's configuration: a field for each flag, whose metadata is the flag's help."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from relay.golang import flag
from relay.golang.flag import FlagError

DEFAULT_KEY_FILE = "/var/lib/derper/derper.key"  # derper's, when it runs as root without -c
DEV_ADDRESS = ":3340"
DEV_MESH_KEY = "TAILSCALE_DERPER_MESH_KEY"  # derper's environment variable for -dev
MAX_INT = 2**63 - 1
_PORTS = {"http": 80, "https": 443}


def _flag(name: str, default: Any, usage: str, kind: str = "") -> Any:
    """Make the field of one flag.

    `default` is a value, or a function that finds it on this machine. The kind follows from it
    unless given.
    """
    metadata = {
        "flag": name,
        "usage": usage,
        "kind": kind or ("str" if callable(default) else type(default).__name__),
    }
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _list(name: str, usage: str) -> Any:
    return _flag(name, (), usage, "list")


def _duration(name: str, default_s: float, usage: str) -> Any:
    return _flag(name, default_s, usage, "duration")


def default_cert_dir() -> str:
    """Return derper's folder in Go's user cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or (
        os.environ.get("HOME", "") and os.environ["HOME"] + "/.cache"
    )
    return f"{cache}/tailscale/derper-certs" if cache else ""


def default_mesh_psk_file() -> str:
    """Return the first of derper's two well-known mesh key files, or "".

    It must exist and be readable.
    """
    candidates = ["/home/derp/keys/derp-mesh.key", os.environ.get("HOME", "") + "/keys/derp-mesh.key"]
    return next((path for path in candidates if os.access(path, os.F_OK)), "")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The command line's settings.

    Durations are seconds, lists are tuples, an empty string is "not given".
    """

    # Serving.
    dev: bool = _flag(
        "dev",
        False,
        f"development mode: plain HTTP on {DEV_ADDRESS} (overrides -a), a fresh key at each start",
    )
    version: bool = _flag("version", False, "print the version and exit")
    addr: str = _flag(
        "a",
        ":443",
        'listen address for HTTPS and DERP: ":port", "ip:port" or "[ip]:port". '
        "TLS is served if the port is 443 or -certmode is manual",
    )
    http_port: int = _flag(
        "http-port", 80, "port for plain HTTP beside TLS, on the same IP as -a; -1 disables"
    )
    stun: bool = _flag("stun", True, "answer STUN, on the same IP as -a")
    stun_port: int = _flag("stun-port", 3478, "UDP port for STUN")
    derp: bool = _flag(
        "derp", True, "serve DERP; false keeps only the probes, bootstrap DNS and the home page"
    )
    home: str = _flag(
        "home", "", 'what / shows: empty for the default page, "blank", or a URL to redirect to'
    )
    bootstrap_dns_names: tuple[str, ...] = _list(
        "bootstrap-dns-names", "host names to publish at /bootstrap-dns"
    )
    unpublished_bootstrap_dns_names: tuple[str, ...] = _list(
        "unpublished-bootstrap-dns-names",
        "host names that /bootstrap-dns gives only to those who ask for them by name",
    )

    # Keys and certificates.
    key_file: str = _flag("c", "", f"key file, made if missing (root without -c: {DEFAULT_KEY_FILE})")
    hostname: str = _flag(
        "hostname", "derp.tailscale.com", "host name, or IP address, that the certificate is for"
    )
    cert_mode: str = _flag(
        "certmode",
        "letsencrypt",
        "where the certificate comes from; this relay knows only manual: files in -certdir",
    )
    cert_dir: str = _flag(
        "certdir", default_cert_dir, "directory of <hostname>.crt and <hostname>.key; read again on SIGHUP"
    )
    acme_eab_kid: str = _flag("acme-eab-kid", "", "derper's ACME client; without effect here")
    acme_eab_key: str = _flag("acme-eab-key", "", "derper's ACME client; without effect here")
    acme_email: str = _flag("acme-email", "", "derper's ACME client; without effect here")
    acme_ip_certs: bool = _flag("acme-ip-certs", False, "derper's ACME client; refused here")

    # Admission.
    verify_clients: bool = _flag(
        "verify-clients", False, "admit only clients that the local tailscaled knows"
    )
    socket: str = _flag("socket", "", "tailscaled's socket for -verify-clients (empty: its usual place)")
    verify_client_url: str = _flag(
        "verify-client-url",
        "",
        "admission controller that is asked for every client, e.g. headscale's /verify",
    )
    verify_client_url_fail_open: bool = _flag(
        "verify-client-url-fail-open",
        False,
        "admit clients while -verify-client-url cannot be reached (derper's default is true)",
    )
    disallow_app_names: tuple[str, ...] = _list(
        "disallow-app-names", "client app names to refuse; mesh peers are exempt"
    )

    # Mesh.
    mesh_psk_file: str = _flag(
        "mesh-psk-file", default_mesh_psk_file, "file with the mesh key, 64 hex digits"
    )
    mesh_with: tuple[str, ...] = _list(
        "mesh-with", "relays of this region to mesh with: host or host/dialhost; may name this one"
    )
    secrets_url: str = _flag("secrets-url", "", "derper's setec client; refused here, use -mesh-psk-file")
    secrets_path_prefix: str = _flag(
        "secrets-path-prefix", "prod/derp", "derper's setec client; without effect here"
    )
    secrets_cache_dir: str = _flag("secrets-cache-dir", "", "derper's setec client; without effect here")

    # Limits.
    accept_connection_limit: float = _flag(
        "accept-connection-limit", float("inf"), "new TLS connections per second"
    )
    accept_connection_burst: int = _flag(
        "accept-connection-burst",
        MAX_INT,
        "burst for -accept-connection-limit, which never acts without one (nor does derper's)",
    )
    rate_config: str = _flag("rate-config", "", "JSON file with limits per client; read again on SIGHUP")
    tcp_keepalive_time_s: float = _duration(
        "tcp-keepalive-time", 600.0, "TCP keep-alive time; long, to spare batteries"
    )
    tcp_user_timeout_s: float = _duration("tcp-user-timeout", 15.0, "TCP user timeout")
    tcp_write_timeout_s: float = _duration(
        "tcp-write-timeout", 2.0, "hang up on a client that takes no bytes for so long; 0 = never"
    )
    ace: bool = _flag("ace", False, "derper's experimental CONNECT proxy; refused here")

    # Ours.
    workers: int = _flag(
        "workers",
        1,
        "processes on one port, joined by mesh frames; the limits of handshakes, of connections per "
        "address and of memory are those of each",
    )
    allow_file: str = _flag(
        "allow-file", "", "admit only the node keys in this file, one per line; read again when it changes"
    )
    prober_keys: str = _flag(
        "prober-keys",
        "",
        "admit the node keys in this file as ordinary clients without asking, whatever the other "
        "flags say; the same format, read again when it changes",
    )
    verify_recheck_s: float = _duration(
        "verify-recheck", 300.0, "ask again for connected clients so often; 0 = never"
    )
    verify_cache_s: float = _duration(
        "verify-cache", 10.0, "remember an admission answer so long; 0 = not at all"
    )
    trusted_proxies: tuple[str, ...] = _list(
        "trusted-proxies", "addresses or CIDRs whose X-Forwarded-For or PROXY header is believed"
    )
    proxy_protocol: bool = _flag(
        "proxy-protocol", False, "connections from -trusted-proxies begin with a PROXY header, v1 or v2"
    )
    metrics_listen: str = _flag(
        "metrics-listen",
        "",
        "address for /metrics and /debug/, worker n on its port + n; or unix:PATH, worker n on "
        "PATH.n, for root and the relay's user (empty: on -a, for direct loopback peers only)",
    )
    metrics_allow: tuple[str, ...] = _list(
        "metrics-allow",
        "addresses or CIDRs that may ask -metrics-listen for /metrics, and the host itself; /debug/ is for "
        "the host only then (empty: all who reach it)",
    )
    front_check: str = _flag(
        "front-check",
        "",
        "host:port of the relay's own TLS front; STUN is silent while clients of -hostname would not "
        "get to this relay there",
    )
    drain_s: float = _duration("drain", 10.0, "on SIGTERM, spread the clients' disconnects over so long")
    handshake_timeout_s: float = _duration(
        "handshake-timeout", 10.0, "time limit of the TLS, HTTP and DERP handshakes, each"
    )
    handshakes_in_flight: int = _flag(
        "handshakes-in-flight",
        1024,
        "handshakes under way at once; when they are more, each new one ends one that got no "
        "further for 2s, at 4 times as many the slowest in any case; 0 = no limit",
    )
    handshakes_per_address: int = _flag(
        "handshakes-per-address",
        64,
        "of these, from one address (IPv6: one /64), likewise, but at 16 times as many; 0 = no limit",
    )
    connections_per_address: int = _flag(
        "connections-per-address", 0, "connections of one address (IPv6: one /64); 0 = no limit"
    )
    memory_ceiling_mib: int = _flag(
        "memory-ceiling", 0, "refuse new clients above so many MiB resident; 0 = no limit"
    )
    log_format: str = _flag(
        "log-format", "auto", "plain, json or journal; auto takes journal under systemd, else plain"
    )

    @property
    def listen(self) -> tuple[str, int]:
        """Return host ("" for every address) and port of the main listener. Raises FlagError."""
        try:
            host, port = flag.split_host_port(DEV_ADDRESS if self.dev else self.addr)
        except ValueError as e:
            raise FlagError(f"invalid server address: {e}") from None
        return host, parse_port(port)

    @property
    def front(self) -> tuple[str, int]:
        """Return host and port of -front-check. Raises FlagError."""
        try:
            host, port = flag.split_host_port(self.front_check)
        except ValueError as e:
            raise FlagError(str(e)) from None
        return host or "127.0.0.1", parse_port(port)

    @property
    def serve_tls(self) -> bool:
        """Whether TLS is served, by derper's rule: the port is 443, or certificates are manual."""
        return self.listen[1] == 443 or self.cert_mode == "manual"


def unix_path(address: str) -> str:
    """Return the path of `unix:PATH`, or "" for another address."""
    return address.removeprefix("unix:") if address.startswith("unix:") else ""


def parse_port(text: str) -> int:
    port = _PORTS.get(text) if not text.isdecimal() else int(text)
    if port is None or port > 65535:
        raise FlagError(f"invalid server address: unknown port {flag.quote(text)}")
    return port
