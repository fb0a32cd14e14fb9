"""Settings of the http block, meant for other sites, that our servers do not take over. Pure.

The settings that every nginx knows are in the template. These are of modules that a package may
leave out, so our servers name them only where the http block does.
"""

from __future__ import annotations

from engine.facts import Facts
from roles.front.nginx import neighbours
from roles.readers.nginx_config import http_directives

_OFF = {
    "auth_request": "off",
    "mirror": "off",
    "modsecurity": "off",
    "pagespeed": "off",
    # Else clients could name an address of their own choice in a header, where others trust all.
    "set_real_ip_from": "255.255.255.255",
    "ssl_reject_handshake": "off",
}
# Such a limit can only be replaced by one of our own. Requests with an empty key are not counted.
_UNLIMITED = {
    "limit_conn": (
        "limit_conn_zone $derpfleet_none zone=derpfleet_conn:32k;",
        "limit_conn derpfleet_conn 65535;",
    ),
    "limit_req": (
        "limit_req_zone $derpfleet_none zone=derpfleet_req:32k rate=1000r/s;",
        "limit_req zone=derpfleet_req;",
    ),
}
_SET = 'set $derpfleet_none "";'


def lines(facts: Facts) -> list[str]:
    """Return the lines that each of our servers has besides."""
    there = http_directives(neighbours.dump(facts))
    off = [f"{name} {word};" for name, word in _OFF.items() if name in there]
    unlimited = [line for name, (_, line) in _UNLIMITED.items() if name in there]
    return [*off, *unlimited, *([_SET] if unlimited else [])]


def zones(facts: Facts) -> list[str]:
    """Return the lines of the http block that `lines` needs."""
    there = http_directives(neighbours.dump(facts))
    return [zone for name, (zone, _) in _UNLIMITED.items() if name in there]
