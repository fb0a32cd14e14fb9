"""A scripted HTTP server for tests: it answers in a given order and remembers all requests."""

import asyncio
import functools
import ssl
import time
from contextlib import asynccontextmanager

import h11


class Script:
    """`answers` are given in turn, and the last one again and again.

    Each is (status, body), (status, body, headers), or bytes to send raw. `before_answer` is
    awaited between a request and its answer; raise ConnectionResetError there to close.
    """

    def __init__(self, *answers, before_answer=None):
        self.answers = list(answers)
        self.before_answer = before_answer
        self.requests = []
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        http = h11.Connection(h11.SERVER)
        head, body = None, b""
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await reader.read(65536))
                elif isinstance(event, h11.Request):
                    head, body = event, b""
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    headers = {name.decode(): value.decode() for name, value in head.headers}
                    self.requests.append((head.method.decode(), head.target.decode(), headers, body))
                    if self.before_answer:
                        await self.before_answer()
                    answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    if isinstance(answer, bytes):
                        writer.write(answer)
                        await writer.drain()
                        break
                    status, text, *more = answer
                    fields = [("Content-Length", str(len(text))), *(more[0] if more else [])]
                    writer.write(
                        http.send(h11.Response(status_code=status, headers=fields))
                        + http.send(h11.Data(data=text))
                        + http.send(h11.EndOfMessage())
                    )
                    await writer.drain()
                    if http.our_state is h11.MUST_CLOSE:
                        break
                    http.start_next_cycle()
                else:
                    break
        except (ConnectionError, asyncio.CancelledError, h11.ProtocolError):
            pass
        finally:
            writer.close()


def asynchronous(test):
    """Run a test that is a coroutine."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def serving(script, *, tls=None, unix_path=None):
    """Run the script on loopback or a unix socket; the block gets the base URL, or the path."""
    tasks = set()

    async def connected(reader, writer):
        tasks.add(asyncio.current_task())
        await script.serve(reader, writer)

    if unix_path:
        server = await asyncio.start_unix_server(connected, unix_path)
        base = unix_path
    else:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        base = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield base
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.01)  # for both sides' transports to be gone


def tls_context(directory, make_self_signed):
    """Return a server context for 127.0.0.1, and the file to trust it by."""
    certificate, key = make_self_signed("127.0.0.1", time.time())
    (directory / "c.pem").write_bytes(certificate)
    (directory / "k.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "c.pem", directory / "k.pem")
    return context, directory / "c.pem"
