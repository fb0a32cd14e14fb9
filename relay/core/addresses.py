"""A table of the connections and unfinished handshakes of each address, with limits.

No I/O, no clock.

It holds an entry per address with an open connection and nothing else, so open sockets bound it. An
IPv6 host owns a whole /64, which therefore counts as one address. An address must be the client's
own: that of a proxy would be shared by all of its clients.

Many honest clients may share one address, and must not end each other's handshakes. So above a
limit only a handshake that has taken no step for PATIENCE_S is ended, as those of a slow attack
are. Far above the limit (CROWD times, CROWD_IN_ALL times) the one that has waited for longest is
ended in any case, so memory and descriptors stay bounded.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Protocol

from relay.core.reasons import Refusal

PATIENCE_S: Final = 2.0
CROWD: Final = 16  # times the limit of one address
CROWD_IN_ALL: Final = 4  # times the limit of all


class Holder(Protocol):
    """The owner of a counted handshake."""

    def give_up(self, reason: Refusal) -> None:
        """End the connection, to make room for another."""


class TooMany(Exception):
    """A limit is reached; `reason` names it.

    `oldest` owns the handshake that has taken no step for longest among those that fill this limit.
    It is None if the limit is one of connections.
    """

    def __init__(self, reason: Refusal, oldest: Holder | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.oldest = oldest


class AddressTable:
    """Limits on connections and handshakes per address, and on handshakes in all. 0 is no limit."""

    def __init__(self, *, connections: int = 0, handshakes: int = 0, handshakes_in_all: int = 0) -> None:
        self._connections_limit = connections
        self._handshakes_limit = handshakes
        self._in_all_limit = handshakes_in_all
        self._connections: dict[str, int] = {}
        # In the order of their last steps, also here: the first has waited for longest.
        self._handshakes: dict[str, dict[Ticket, None]] = {}
        self._handshakes_in_all: dict[Ticket, None] = {}

    def __len__(self) -> int:
        """Return how many addresses have a connection."""
        return len(self._connections)

    @property
    def handshakes(self) -> int:
        """Return how many handshakes are under way, in all."""
        return len(self._handshakes_in_all)

    def enter(self, address: str, holder: Holder, now: float) -> Ticket:
        """Count a new connection and its handshake.

        Raises TooMany, and counts nothing then.
        """
        key = network_of(address)
        here = self._handshakes.get(key, {})
        if slow := _in_the_way(self._handshakes_in_all, self._in_all_limit, CROWD_IN_ALL, now):
            raise TooMany(Refusal.TOO_MANY_HANDSHAKES, slow.holder)
        if slow := _in_the_way(here, self._handshakes_limit, CROWD, now):
            raise TooMany(Refusal.TOO_MANY_HANDSHAKES_HERE, slow.holder)
        if self._connections_limit and self._connections.get(key, 0) >= self._connections_limit:
            raise TooMany(Refusal.TOO_MANY_CONNECTIONS)
        ticket = Ticket(self, key, holder, now)
        self._handshakes_in_all[ticket] = None
        self._handshakes.setdefault(key, here)[ticket] = None
        self._connections[key] = self._connections.get(key, 0) + 1
        return ticket

    def _step(self, ticket: Ticket, key: str) -> None:
        for tickets in (self._handshakes_in_all, self._handshakes[key]):
            del tickets[ticket]
            tickets[ticket] = None

    def _settle(self, ticket: Ticket, key: str) -> None:
        del self._handshakes_in_all[ticket]
        here = self._handshakes[key]
        del here[ticket]
        if not here:
            del self._handshakes[key]

    def _leave(self, key: str) -> None:
        left = self._connections[key] - 1
        if left:
            self._connections[key] = left
        else:
            del self._connections[key]


class Ticket:
    """One counted connection.

    Call `step` when its handshake has got further, `settle` when it is done, and `leave` when the
    connection ends. The last two are idempotent.
    """

    __slots__ = ("_here", "_key", "_table", "holder", "since")

    def __init__(self, table: AddressTable, key: str, holder: Holder, now: float) -> None:
        self.holder: Holder | None = holder  # while its handshake is under way
        self.since = now  # when it took its last step
        self._table = table
        self._key = key
        self._here = True

    def step(self, now: float) -> None:
        if self.holder is not None:
            self.since = now
            self._table._step(self, self._key)

    def settle(self) -> None:
        if self.holder is not None:
            self.holder = None
            self._table._settle(self, self._key)

    def leave(self) -> None:
        self.settle()
        if self._here:
            self._here = False
            self._table._leave(self._key)


@lru_cache(maxsize=64)
def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address, mapped IPv4 as IPv4. Return None if the text is none.

    Recent results are cached: a handshake asks four times, at 8 µs each.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def network_of(address: str) -> str:
    """Return what counts as one peer: an IPv4 address, or the /64 of an IPv6 one.

    Text that is no address is returned as it is.
    """
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))


def _in_the_way(tickets: dict[Ticket, None], limit: int, crowd: int, now: float) -> Ticket | None:
    """Return the handshake that has to go before another may begin, or None."""
    if not limit or len(tickets) < limit:
        return None
    slowest = next(iter(tickets))
    is_late = now - slowest.since >= PATIENCE_S
    return slowest if is_late or len(tickets) >= crowd * limit else None
