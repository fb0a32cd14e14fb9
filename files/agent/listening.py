"""Whether a unit has the TCP sockets that it is to have."""

import socket

ANY = ("0.0.0.0", "::")


def missing(places, unit, sockets):
    """Return those of `places` that the unit does not listen on.

    A place is "address:port", with brackets around an address of IPv6. `sockets`: those of the
    host, as `listeners` returns them.
    """
    have = {(each["address"], each["port"]) for each in _tcp(sockets) if each["unit"] == unit}
    return [place for place in places if not _has(have, *_parts(place))]


def in_the_way(places, unit, sockets):
    """Return the other programs whose `sockets` keep the unit from `places`, in words."""
    found = []
    for entry in _tcp(sockets):
        if entry["unit"] != unit and any(_meets(entry, *_parts(place)) for place in places):
            where = "%s:%d" % (entry["address"], entry["port"])
            found.append("%s (pid %d) on %s" % (entry["program"] or "the kernel", entry["pid"], where))
    return ", ".join(found)


def _tcp(sockets):
    return [entry for entry in sockets if entry["proto"] == "tcp"]


def _parts(place):
    address, _, port = place.rpartition(":")
    return address.strip("[]"), int(port)


def _has(have, address, port):
    """Whether a socket of its own, or a wildcard's, takes connections to the place."""
    wildcard = ANY[":" in address]
    if {(address, port), (wildcard, port)} & have:
        return True
    # A wildcard of IPv6 may be IPv4's as well; only a connection shows it.
    return wildcard == ANY[0] and (ANY[1], port) in have and _answers(address, port)


def _answers(address, port):
    try:
        socket.create_connection(("127.0.0.1" if address in ANY else address, port), timeout=2).close()
    except OSError:
        return False
    return True


def _meets(entry, address, port):
    """Whether a socket keeps another from the place. IPv6's wildcard may keep IPv4's, too."""
    if entry["port"] != port:
        return False
    if entry["address"] == address or "::" in (entry["address"], address):
        return True
    return (":" in entry["address"]) == (":" in address) and bool({entry["address"], address} & set(ANY))
