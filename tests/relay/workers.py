"""Several workers of one relay in memory, joined as their links join them."""

from __future__ import annotations

from relay.core import wire
from relay.core.stats import Stats, Tally, merge, snapshot
from tests.relay.world import Client, MeshLink, World


class Way:
    """The link of one worker to another: `link` at its own end, `session` at the other."""

    def __init__(self, number: int, own: World, other: World) -> None:
        self.own = own
        self.link = own.link("sibling", sibling=True)
        self.session = other.connect(f"worker {number}", is_mesh=True, sibling=True)
        self.session.says(wire.WATCH_CONNS_FRAME)

    def carry_packets(self) -> bool:
        """Carry frames to the other worker. Return whether there were some."""
        frames = self.link.hears()
        self.session.says(*(wire.pack_frame(*frame) for frame in frames))
        return bool(frames)

    def carry_news(self) -> bool:
        """Carry the other worker's frames here, as relay/mesh/mesh.py does."""
        frames = self.session.hears()
        for kind, payload in frames:
            if kind == wire.PEER_STATE:
                self.own.switch.announce(self.link.link, wire.parse_peer_state(payload))
            elif kind == wire.PEER_GONE:
                self.own.switch.withdraw(self.link.link, wire.parse_peer_gone(payload)[0])
            else:
                assert kind == wire.PING
                self.link.link.met = True
                self.session.says(wire.pack_pong(payload))
        return bool(frames)

    def carry(self) -> bool:
        return self.carry_news() | self.carry_packets()


class Workers:
    """`count` workers with one clock. `carry` lets all that is between them arrive."""

    def __init__(self, count: int) -> None:
        self.worlds = [World() for _ in range(count)]
        self.ways = {
            (here, there): Way(here, self.worlds[here], self.worlds[there])
            for here in range(count)
            for there in range(count)
            if here != there
        }
        self.carry()

    def pass_time(self) -> None:
        for world in self.worlds:
            world.now += 1

    def connect(self, name: str, worker: int, **options: object) -> Client:
        """Let a client connect to one of them, a moment later."""
        self.pass_time()
        client = self.worlds[worker].connect(name, **options)
        self.carry()
        return client

    def carry(self) -> None:
        while any(way.carry() for way in self.ways.values()):
            pass

    def links_outside(self, name: str) -> list[MeshLink]:
        """Return every worker's link to another relay."""
        return [world.link(name) for world in self.worlds]

    def stats(self) -> Stats:
        """Return the figures of all of them."""
        return merge(figures(world) for world in self.worlds)

    def problems(self) -> list[str]:
        return [problem for world in self.worlds for problem in world.switch.consistency_check()]


def figures(world: World) -> Stats:
    """Return one worker's figures."""
    return snapshot(world.switch, Tally(), {}, [])
