"""The relay's command line: derper's flags under derper's names, with derper's defaults, and a few
of our own.

`parse(argv)` gives a frozen `Config`; `parse_or_exit` is what a program calls. Each field of
`Config` is one flag, and its metadata is its help: there is no second list. Refused with words:
what only derper can do (its ACME client, setec, ACE). Stricter than derper: an argument that is no
flag is an error (derper stops reading there, so `-stun false` leaves STUN on and drops every flag
behind it); `-verify-client-url-fail-open` is off unless asked for.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn

from relay import __version__
from relay.golang import flag
from relay.golang.flag import FlagError, HelpWanted

DEFAULT_KEY_FILE = "/var/lib/derper/derper.key"  # derper's, when it runs as root without -c
DEV_ADDRESS = ":3340"
DEV_MESH_KEY = "TAILSCALE_DERPER_MESH_KEY"  # derper's environment variable for -dev
MAX_INT = 2**63 - 1
_PORTS = {"http": 80, "https": 443}
_KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "bool": (flag.parse_bool, ""),
    "int": (flag.parse_int, "int"),
    "float": (flag.parse_float, "float"),
    "str": (str, "string"),
    "list": (flag.parse_list, "list"),
    "duration": (flag.parse_duration, "duration"),
}


def _flag(name: str, default: Any, usage: str, kind: str = "") -> Any:
    """One flag.

    `default` is a value, or a function that finds it on this machine; the kind follows from it
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
    """Go's user cache directory and derper's place in it."""
    cache = os.environ.get("XDG_CACHE_HOME") or (
        os.environ.get("HOME", "") and os.environ["HOME"] + "/.cache"
    )
    return f"{cache}/tailscale/derper-certs" if cache else ""


def default_mesh_psk_file() -> str:
    """The first of derper's two well-known mesh key files that exists and may be looked at, else
    empty.
    """
    candidates = ["/home/derp/keys/derp-mesh.key", os.environ.get("HOME", "") + "/keys/derp-mesh.key"]
    return next((path for path in candidates if os.access(path, os.F_OK)), "")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the command line asked for.

    Durations are seconds, lists are tuples, an empty string is "not given".
    """

    # What is served, and where.
    dev: bool = _flag(
        "dev",
        False,
        f"development mode: plain HTTP on {DEV_ADDRESS} (overrides -a), a fresh key at each start",
    )
    version: bool = _flag("version", False, "print the version and exit")
    addr: str = _flag(
        "a",
        ":443",
        'listen address for HTTPS and DERP: ":port", "ip:port" or "[ip]:port". TLS is served if the port is 443 or -certmode is manual',
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

    # Who may use it.
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
    workers: int = _flag("workers", 1, "processes on one port, joined by mesh frames")
    allow_file: str = _flag(
        "allow-file", "", "admit only the node keys in this file, one per line; read again when it changes"
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
        "address for /metrics and /debug/, worker n on its port + n (empty: on -a, for direct loopback peers only)",
    )
    front_check: str = _flag(
        "front-check",
        "",
        "host:port of the relay's own TLS front; STUN is silent while clients of -hostname would not get to this relay there",
    )
    drain_s: float = _duration("drain", 10.0, "on SIGTERM, spread the clients' disconnects over so long")
    handshake_timeout_s: float = _duration(
        "handshake-timeout", 10.0, "time limit of the TLS, HTTP and DERP handshakes, each"
    )
    handshakes_in_flight: int = _flag(
        "handshakes-in-flight", 1024, "handshakes under way at once; 0 = no limit"
    )
    handshakes_per_address: int = _flag(
        "handshakes-per-address", 64, "of these, from one address (IPv6: one /64); 0 = no limit"
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
        """Host ("" for every address) and port of the main listener. Raises FlagError."""
        try:
            host, port = flag.split_host_port(DEV_ADDRESS if self.dev else self.addr)
        except ValueError as e:
            raise FlagError(f"invalid server address: {e}") from None
        return host, _port(port)

    @property
    def front(self) -> tuple[str, int]:
        """Host and port of -front-check. Raises FlagError."""
        try:
            host, port = flag.split_host_port(self.front_check)
        except ValueError as e:
            raise FlagError(str(e)) from None
        return host or "127.0.0.1", _port(port)

    @property
    def serve_tls(self) -> bool:
        """derper's rule: the port is 443, or certificates are manual."""
        return self.listen[1] == 443 or self.cert_mode == "manual"


_SECTIONS = {
    "dev": "Serving",
    "key_file": "Keys and certificates",
    "verify_clients": "Admission",
    "mesh_psk_file": "Mesh",
} | {
    "accept_connection_limit": "Limits",
    "workers": "Not derper's: this relay's own",
}
_EXAMPLES = """\
Examples:
  python -m relay -dev
        try it: plain HTTP on :3340, a key that is not kept
  python -m relay -c /var/lib/derper/derper.key -hostname derp.example.org -certmode manual -certdir /etc/derp
        TLS on :443, plain HTTP on :80, STUN on :3478
  python -m relay -a 127.0.0.1:8443 -http-port -1 -c derper.key -trusted-proxies 127.0.0.1 \\
      -verify-client-url https://headscale.example.org/verify
        plain HTTP behind a TLS front on the same machine, admitting headscale's nodes only
"""


def _port(text: str) -> int:
    port = _PORTS.get(text) if not text.isdecimal() else int(text)
    if port is None or port > 65535:
        raise FlagError(f"invalid server address: unknown port {flag.quote(text)}")
    return port


def usage(width: int = 100) -> str:
    """The whole help text, sections in the order of Config's fields."""
    lines = [f"derpfleet relay {__version__}: a DERP and STUN server. Usage: python -m relay [flags]", ""]
    lines.append(
        "Flags are written -flag, -flag=value or -flag value, with one dash or two; switch off with -flag=false."
    )
    for f in fields(Config):
        if f.name in _SECTIONS:
            lines += ["", f"{_SECTIONS[f.name]}:"]
        lines.append(f"  -{f.metadata['flag']} {_KINDS[f.metadata['kind']][1]}".rstrip())
        text = f.metadata["usage"] + _default_note(getattr(Config(), f.name), f.metadata["kind"])
        lines += textwrap.wrap(text, width - 8, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines) + "\n\n" + _EXAMPLES


def _default_note(value: Any, kind: str) -> str:
    if kind == "duration":
        return f" (default {flag.format_duration(value)})"
    if kind == "str" and value:
        return f" (default {flag.quote(value)})"
    if kind == "bool":
        return " (default true)" if value else ""
    if value in ((), "", 0, MAX_INT) or value == float("inf"):
        return ""
    return f" (default {value})"


def parse(argv: Sequence[str], *, root: bool | None = None) -> Config:
    """Flags of `argv` (without the program's name) as a checked Config.

    `root` is whether the process is root, for the key file's default. Raises FlagError with one
    line that says what is wrong and what to do, and HelpWanted.
    """
    by_flag = {f.metadata["flag"]: f for f in fields(Config)}
    values, rest = flag.parse_argv(argv, {name: _KINDS[f.metadata["kind"]][0] for name, f in by_flag.items()})
    if rest:
        raise FlagError(
            f"unexpected argument {flag.quote(rest[0])}: flags only; a boolean is switched off with -flag=false"
        )
    config = Config(**{by_flag[name].name: value for name, value in values.items()})
    if config.version:
        return config
    _check(config)
    if config.dev or config.key_file:
        return config
    if os.geteuid() == 0 if root is None else root:
        return replace(config, key_file=DEFAULT_KEY_FILE)
    raise FlagError("-c <config path> not specified: name the key file, it is made if missing (or use -dev)")


def _check(config: Config) -> None:
    """Raise FlagError for values that are well-formed and still cannot be served."""
    config.listen  # noqa: B018  raises
    if config.serve_tls and config.cert_mode != "manual" and not config.dev:
        raise FlagError(
            f"-certmode {config.cert_mode}: this relay asks no certificate authority itself. Get the certificate with certbot "
            "(its deploy hook sends SIGHUP), then use -certmode manual and -certdir"
        )
    refused = {"-secrets-url": config.secrets_url, "-acme-ip-certs": config.acme_ip_certs, "-ace": config.ace}
    for name, used in refused.items():
        if used:
            raise FlagError(f"{name} is derper's alone: run this relay without it")
    if config.home not in ("", "blank") and not config.home.startswith(("http://", "https://")):
        raise FlagError(f"unknown --home value {flag.quote(config.home)}")
    if any("/" in name for name in config.unpublished_bootstrap_dns_names):
        raise FlagError(
            "-unpublished-bootstrap-dns-names: staged roll-out by a TXT record (name/record) is derper's alone"
        )
    if config.mesh_with and not config.mesh_psk_file and not (config.dev and os.environ.get(DEV_MESH_KEY)):
        raise FlagError("--mesh-with requires --mesh-psk-file")
    url = config.verify_client_url
    if url and not url.startswith(("http://", "https://")):
        raise FlagError(f"-verify-client-url {flag.quote(url)}: not an http:// or https:// URL")
    if config.log_format not in ("auto", "plain", "json", "journal"):
        raise FlagError(f"-log-format {flag.quote(config.log_format)}: choose auto, plain, json or journal")
    _check_addresses(config)
    _check_numbers(config)


def _check_addresses(config: Config) -> None:
    if config.metrics_listen:
        try:
            _port(flag.split_host_port(config.metrics_listen)[1])
        except ValueError as e:
            raise FlagError(f"-metrics-listen: {str(e).removeprefix('invalid server address: ')}") from None
    if config.front_check:
        try:
            config.front  # noqa: B018  raises
        except FlagError as e:
            raise FlagError(f"-front-check: {str(e).removeprefix('invalid server address: ')}") from None
    for entry in config.trusted_proxies:
        try:
            ipaddress.ip_network(entry, strict=False)
        except ValueError:
            raise FlagError(
                f"-trusted-proxies: {flag.quote(entry)} is neither an address nor a CIDR"
            ) from None
    if config.proxy_protocol and not config.trusted_proxies:
        raise FlagError("-proxy-protocol needs -trusted-proxies: nobody else's PROXY header is believed")


def _check_numbers(config: Config) -> None:
    for f in fields(config):
        value = getattr(config, f.name)
        if f.metadata["kind"] == "duration" and value < 0:
            raise FlagError(f"-{f.metadata['flag']} must not be negative")
    for name, lowest, highest in (
        ("http_port", -1, 65535),
        ("stun_port", 0, 65535),
        ("workers", 1, 256),
        ("accept_connection_burst", 1, MAX_INT),
        ("handshakes_in_flight", 0, MAX_INT),
        ("handshakes_per_address", 0, MAX_INT),
        ("connections_per_address", 0, MAX_INT),
        ("memory_ceiling_mib", 0, MAX_INT),
    ):
        if not lowest <= getattr(config, name) <= highest:
            flag = name.replace("_", "-").removesuffix("-mib")
            raise FlagError(
                f"-{flag} must be at least {lowest}"
                + ("" if highest == MAX_INT else f" and at most {highest}")
            )
    if not config.accept_connection_limit > 0:
        raise FlagError("-accept-connection-limit must be more than 0; leave it out for no limit")


def parse_or_exit(argv: Sequence[str] | None = None) -> Config:
    """`parse` for a program: prints help and exits 0, prints what is wrong and exits 2, prints the
    version and exits 0.
    """
    try:
        config = parse(sys.argv[1:] if argv is None else argv)
    except HelpWanted:
        _exit(usage(min(shutil.get_terminal_size().columns, 120)), 0)
    except FlagError as e:
        _exit(f"relay: {e}\nUse -h for the flags.\n", 2)
    if config.version:
        _exit(f"{__version__}\n", 0)
    return config


def _exit(text: str, code: int) -> NoReturn:
    (sys.stderr if code else sys.stdout).write(text)
    raise SystemExit(code)
