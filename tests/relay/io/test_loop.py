"""The relay's loop: its own sockets and asyncio's on one epoll. Real sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from relay.io.loop import Loop
from relay.io.stream import HIGH_WATER, Receiver, Stream

BUFFER = memoryview(bytearray(65536))


class Heard(Receiver):
    """Notes the calls of its stream."""

    buffer = BUFFER

    def __init__(self, then: Callable[[bytes], object] = bytes, at_end: Callable[[], object] = bool) -> None:
        self.said: list[object] = []
        self._then = then
        self._at_end = at_end

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(BUFFER[:nbytes])
        self.said.append(data)
        self._then(data)

    def eof_received(self) -> None:
        self.said.append("eof")
        self._at_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.said.append(type(exc))

    def pause_writing(self) -> None:
        self.said.append("pause")

    def resume_writing(self) -> None:
        self.said.append("resume")


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Sockets to close at the end."""
    opened: list[socket.socket] = []
    yield opened
    for sock in opened:
        sock.close()


@pytest.fixture
def connect(loop: Loop, sockets: list[socket.socket]) -> Callable[[Receiver], tuple[Stream, socket.socket]]:
    """A stream with this receiver, and the socket at its other end."""

    def connect(receiver: Receiver) -> tuple[Stream, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        sockets.extend((ours, theirs))
        stream = Stream(loop, ours)
        stream.set_receiver(receiver)
        return stream, theirs

    return connect


Connect = Callable[[Receiver], tuple[Stream, socket.socket]]


def rounds(loop: Loop, seconds: float = 0.02) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


def test_what_all_ready_sockets_brought_is_there_at_the_end_of_the_round(
    loop: Loop, connect: Connect
) -> None:
    ends: list[list[object]] = []
    receivers = [Heard() for _ in range(3)]
    others = [connect(receiver)[1] for receiver in receivers]
    for n, other in enumerate(others):
        other.send(b"%d" % n)
    loop.poller.end_of_round = lambda: bool(
        ends.append([said for receiver in receivers for said in receiver.said])
    )
    rounds(loop)
    assert ends[:2] == [[], [b"0", b"1", b"2"]], "before it waits, and behind the round"


def test_what_is_left_at_the_end_of_a_round_is_not_waited_with(loop: Loop) -> None:
    left = [True] * 5
    loop.poller.end_of_round = lambda: bool(left and left.pop())
    loop.run_until_complete(asyncio.wait_for(asyncio.sleep(0.001), 1))
    assert not left


def test_asyncio_gets_its_turn_though_every_round_leaves_something(loop: Loop) -> None:
    loop.poller.end_of_round = lambda: True
    loop.run_until_complete(asyncio.wait_for(asyncio.sleep(0.01), 5))


def test_what_is_written_before_the_loop_waits_may_call_asyncio(loop: Loop) -> None:
    """A connection that breaks then notifies its owner at once, not at the loop's next event."""
    done = loop.create_future()
    calls = iter([lambda: loop.call_soon(done.set_result, None)])
    loop.poller.end_of_round = lambda: bool(next(calls, bool)()) and False
    loop.call_later(30, bool)
    loop.run_until_complete(asyncio.wait_for(done, 5))


@pytest.mark.parametrize("make", ["task", "timer", "thread", "signal"])
def test_asyncio_gets_its_turn_while_sockets_are_always_ready(
    loop: Loop, connect: Connect, make: str
) -> None:
    """Timers, tasks, threads and signals of a round run, though the next one has bytes, too."""
    done = loop.create_future()

    def finish(*_: object) -> None:
        if not done.done():
            done.set_result(None)

    def busy(data: bytes) -> None:
        other.send(data)
        if len(receiver.said) == 3:
            start[make]()

    start: dict[str, Callable[[], object]] = {
        "task": lambda: loop.create_task(asyncio.sleep(0)).add_done_callback(finish),
        "timer": lambda: loop.call_later(0.001, finish),
        "thread": lambda: threading.Thread(target=loop.call_soon_threadsafe, args=(finish,)).start(),
        "signal": lambda: os.kill(os.getpid(), signal.SIGUSR1),
    }
    loop.add_signal_handler(signal.SIGUSR1, finish)
    receiver = Heard(busy)
    _, other = connect(receiver)
    other.send(b"on and on")
    loop.run_until_complete(asyncio.wait_for(done, 5))


def test_asyncios_own_connections_work_beside(loop: Loop, connect: Connect) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(300_000))
        await writer.drain()
        writer.close()

    async def talk() -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(bytes(300_000))
        echo = await reader.read(-1)
        writer.close()
        server.close()
        return len(echo)

    assert loop.run_until_complete(asyncio.wait_for(talk(), 5)) == 300_000


def test_one_connections_failure_is_reported_and_ends_it_alone(loop: Loop, connect: Connect) -> None:
    def fail(_data: bytes) -> None:
        raise ZeroDivisionError

    reported: list[object] = []
    loop.set_exception_handler(lambda _loop, context: reported.append(type(context["exception"])))
    bad, good = Heard(fail), Heard()
    others = [connect(bad)[1], connect(good)[1]]
    for other in others:
        other.send(b"x")
    rounds(loop)
    assert reported == [ZeroDivisionError]
    assert bad.said == [b"x", ZeroDivisionError]
    assert good.said == [b"x"]


def test_a_callback_that_fails_is_reported_and_called_again(loop: Loop) -> None:
    reported: list[object] = []
    loop.set_exception_handler(lambda _loop, context: reported.append(type(context["exception"])))
    reader, writer = os.pipe()

    def fail() -> None:
        os.read(reader, 1)
        raise ZeroDivisionError

    loop.poller.call(reader, fail)
    os.write(writer, b"12")
    rounds(loop)
    assert reported == [ZeroDivisionError] * 2
    loop.poller.forget(reader)
    os.close(reader)
    os.close(writer)


def test_a_stream_that_ends_another_of_its_round(loop: Loop, connect: Connect) -> None:
    """Both are ready; the second one is closed already when its turn comes."""
    streams: list[Stream] = []

    def end_all(_data: bytes) -> None:
        for stream in streams:
            stream.abort()

    receivers = [Heard(end_all), Heard(end_all)]
    for receiver in receivers:
        stream, other = connect(receiver)
        streams.append(stream)
        other.send(b"x")
    rounds(loop)
    assert sorted((receiver.said for receiver in receivers), key=len) == [[type(None)], [b"x", type(None)]]


def test_the_other_end_is_notified(loop: Loop, connect: Connect) -> None:
    streams: list[Stream] = []
    receiver = Heard(at_end=lambda: streams.pop().close())
    stream, other = connect(receiver)
    streams.append(stream)
    other.send(b"last")
    other.shutdown(socket.SHUT_WR)
    stream.write(b"goodbye")
    rounds(loop)
    assert receiver.said == [b"last", "eof", type(None)]
    assert other.recv(100) == b"goodbye"
    assert other.recv(100) == b""


def test_a_broken_connection_is_lost(loop: Loop, sockets: list[socket.socket]) -> None:
    for paused in (False, True):
        with socket.create_server(("127.0.0.1", 0)) as server:
            theirs = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        sockets += [theirs, ours]
        ours.setblocking(False)
        receiver = Heard()
        stream = Stream(loop, ours)
        stream.set_receiver(receiver)
        if paused:
            stream.pause_reading()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()  # with a RST
        rounds(loop)
        assert receiver.said == [ConnectionResetError]
        stream.write(b"this is lost, and it is no error")
        stream.close()
        rounds(loop)
        assert receiver.said == [ConnectionResetError]


def test_a_write_to_a_closed_socket_loses_the_connection(loop: Loop, connect: Connect) -> None:
    receiver = Heard()
    stream, other = connect(receiver)
    other.close()
    stream.write(b"x")
    rounds(loop)
    assert receiver.said == [BrokenPipeError]


def test_a_receiver_that_comes_too_late_is_notified(loop: Loop, connect: Connect) -> None:
    first, late = Heard(), Heard()
    stream, other = connect(first)
    other.close()
    stream.write(b"x")
    stream.set_receiver(late)
    rounds(loop)
    assert (first.said, late.said) == ([BrokenPipeError], [ConnectionResetError])


def test_a_receiver_learns_that_the_stream_it_gets_is_blocked(loop: Loop, connect: Connect) -> None:
    first, second = Heard(), Heard()
    stream, other = connect(first)
    fill(stream)
    stream.set_receiver(second)
    drain(loop, other, stream)
    assert (first.said, second.said) == (["pause"], ["pause", "resume"])


def test_a_stream_is_written_and_paused_before_it_has_a_receiver(
    loop: Loop, sockets: list[socket.socket]
) -> None:
    ours, theirs = socket.socketpair()
    sockets += [ours, theirs]
    ours.setblocking(False)
    stream, receiver = Stream(loop, ours), Heard()
    written = fill(stream)
    stream.pause_reading()
    theirs.send(b"x")
    stream.set_receiver(receiver)
    assert drain(loop, theirs, stream) <= written
    assert receiver.said == ["pause", "resume"]
    stream.resume_reading()
    rounds(loop)
    assert receiver.said == ["pause", "resume", b"x"]


def fill(stream: Stream) -> int:
    """Write until HIGH_WATER bytes wait for the kernel. Return the number of bytes written."""
    written = 0
    while stream.unsent <= HIGH_WATER:
        stream.write(bytes(50_000))
        written += 50_000
    return written


def drain(loop: Loop, other: socket.socket, stream: Stream, each: Callable[[], object] = bool) -> int:
    """Read in small parts until nothing is unsent. Return the number of bytes."""
    read = 0
    other.setblocking(False)
    for _ in range(1000):
        with suppress(BlockingIOError):
            read += len(other.recv(20_000))
        each()
        if not stream.unsent:
            break
        rounds(loop, 0)
    return read


def test_a_slow_reader_pauses_the_writer_who_loses_nothing(loop: Loop, connect: Connect) -> None:
    receiver = Heard()
    stream, other = connect(receiver)
    written = fill(stream)
    assert receiver.said == ["pause"], "once"

    def check() -> None:
        assert receiver.said == (["pause", "resume"] if stream.unsent <= HIGH_WATER // 4 else ["pause"])

    read = drain(loop, other, stream, check)
    stream.write(b"the end")
    with suppress(BlockingIOError):
        while chunk := other.recv(100_000):
            read += len(chunk)
    assert read == written + len(b"the end")


def test_what_was_written_leaves_before_a_close(loop: Loop, connect: Connect) -> None:
    receiver = Heard()
    stream, other = connect(receiver)
    written = fill(stream)
    other.send(b"not read any more")
    stream.close()
    stream.resume_reading()
    assert receiver.said == ["pause"]
    read = drain(loop, other, stream)
    rounds(loop)
    # A socket with unread bytes is closed with a RST.
    with suppress(BlockingIOError, ConnectionResetError):
        while chunk := other.recv(100_000):
            read += len(chunk)
    assert (read, receiver.said) == (written, ["pause", type(None)])


def test_a_peer_that_breaks_off_while_much_is_unsent_is_lost(loop: Loop, connect: Connect) -> None:
    receiver = Heard()
    stream, other = connect(receiver)
    fill(stream)
    other.close()
    rounds(loop)
    assert receiver.said[0] == "pause"
    assert receiver.said[-1] in (ConnectionResetError, BrokenPipeError)
    assert stream.unsent == 0


def test_nothing_is_read_while_reading_is_paused(loop: Loop, connect: Connect) -> None:
    first, second = Heard(), Heard()
    stream, other = connect(first)
    stream.pause_reading()
    other.send(b"x")
    rounds(loop)
    stream.set_receiver(second)
    rounds(loop)
    assert (first.said, second.said) == ([], [])
    stream.resume_reading()
    rounds(loop)
    assert (first.said, second.said) == ([], [b"x"])
