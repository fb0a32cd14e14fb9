"""The relay's command line: derper's flags, names and defaults, and a few flags of our own.

`parse(argv)` returns a frozen `Config`; programs call `parse_or_exit`. Each field of `Config` is
one flag, and its metadata is its help: there is no second list. Features of derper alone (its ACME
client, setec, ACE) are refused with a sentence.

Two things are stricter than derper's. An argument that is no flag is an error (derper stops reading
there, so `-stun false` leaves STUN on and drops every flag behind it).
`-verify-client-url-fail-open` is off unless asked for.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, NoReturn

from relay import __version__
from relay.config import DEFAULT_KEY_FILE, DEV_MESH_KEY, MAX_INT, Config, parse_port, unix_path
from relay.golang import flag
from relay.golang.flag import FlagError, HelpWanted

_KINDS: dict[str, tuple[Callable[[str], Any], str]] = {
    "bool": (flag.parse_bool, ""),
    "int": (flag.parse_int, "int"),
    "float": (flag.parse_float, "float"),
    "str": (str, "string"),
    "list": (flag.parse_list, "list"),
    "duration": (flag.parse_duration, "duration"),
}
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


def usage(width: int = 100) -> str:
    """Return the whole help text, its sections in the order of Config's fields."""
    lines = [f"derpfleet relay {__version__}: a DERP and STUN server. Usage: python -m relay [flags]", ""]
    lines.append(
        "Flags are written -flag, -flag=value or -flag value, with one dash or two; "
        "switch off with -flag=false."
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
    """Return the flags of `argv` (without the program's name) as a checked Config.

    `root` is whether the process is root, for the key file's default. Raises HelpWanted, and
    FlagError with one line that says what is wrong and what to do.
    """
    by_flag = {f.metadata["flag"]: f for f in fields(Config)}
    values, rest = flag.parse_argv(argv, {name: _KINDS[f.metadata["kind"]][0] for name, f in by_flag.items()})
    if rest:
        raise FlagError(
            f"unexpected argument {flag.quote(rest[0])}: flags only; "
            "a boolean is switched off with -flag=false"
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
            f"-certmode {config.cert_mode}: this relay asks no certificate authority itself. "
            "Get the certificate with certbot (its deploy hook sends SIGHUP), "
            "then use -certmode manual and -certdir"
        )
    refused = {"-secrets-url": config.secrets_url, "-acme-ip-certs": config.acme_ip_certs, "-ace": config.ace}
    for name, used in refused.items():
        if used:
            raise FlagError(f"{name} is derper's alone: run this relay without it")
    if config.home not in ("", "blank") and not config.home.startswith(("http://", "https://")):
        raise FlagError(f"unknown --home value {flag.quote(config.home)}")
    if any("/" in name for name in config.unpublished_bootstrap_dns_names):
        raise FlagError(
            "-unpublished-bootstrap-dns-names: staged roll-out by a TXT record (name/record) "
            "is derper's alone"
        )
    if config.mesh_with and not config.mesh_psk_file and not (config.dev and os.environ.get(DEV_MESH_KEY)):
        raise FlagError("--mesh-with requires --mesh-psk-file")
    if crowded := [entry for entry in config.mesh_with if entry.count("/") > 1]:
        raise FlagError(
            f"-mesh-with {flag.quote(crowded[0])}: too many components, it is host or host/dialhost"
        )
    url = config.verify_client_url
    if url and not url.startswith(("http://", "https://")):
        raise FlagError(f"-verify-client-url {flag.quote(url)}: not an http:// or https:// URL")
    if config.log_format not in ("auto", "plain", "json", "journal"):
        raise FlagError(f"-log-format {flag.quote(config.log_format)}: choose auto, plain, json or journal")
    _check_addresses(config)
    _check_numbers(config)


def _check_addresses(config: Config) -> None:
    if (path := unix_path(config.metrics_listen)) and not path.startswith("/"):
        raise FlagError(f"-metrics-listen unix:{path}: the path has to begin with /")
    if config.metrics_listen and not path:
        try:
            parse_port(flag.split_host_port(config.metrics_listen)[1])
        except ValueError as e:
            raise FlagError(f"-metrics-listen: {str(e).removeprefix('invalid server address: ')}") from None
    if config.front_check:
        try:
            config.front  # noqa: B018  raises
        except FlagError as e:
            raise FlagError(f"-front-check: {str(e).removeprefix('invalid server address: ')}") from None
    for name, entries in (
        ("trusted-proxies", config.trusted_proxies),
        ("metrics-allow", config.metrics_allow),
    ):
        for entry in entries:
            try:
                ipaddress.ip_network(entry, strict=False)
            except ValueError:
                raise FlagError(f"-{name}: {flag.quote(entry)} is neither an address nor a CIDR") from None
    if config.proxy_protocol and not config.trusted_proxies:
        raise FlagError("-proxy-protocol needs -trusted-proxies: no other peer's PROXY header is believed")


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
    """Do what `parse` does, for a program.

    Prints help or the version and exits 0, or prints what is wrong and exits 2.
    """
    try:
        config = parse(sys.argv[1:] if argv is None else argv)
    except HelpWanted:
        import shutil  # noqa: PLC0415  1 ms of each start, for the help alone

        _exit(usage(min(shutil.get_terminal_size().columns, 120)), 0)
    except FlagError as e:
        _exit(f"relay: {e}\nUse -h for the flags.\n", 2)
    if config.version:
        _exit(f"{__version__}\n", 0)
    return config


def _exit(text: str, code: int) -> NoReturn:
    (sys.stderr if code else sys.stdout).write(text)
    raise SystemExit(code)
