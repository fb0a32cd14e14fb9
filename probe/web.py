"""The two plain HTTP answers: /derp/probe behind the front, and port 80's /generate_204 with its
challenge."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import h11

from probe.clock import ahead_of, apart
from probe.net import BoundedStream, Flooded, Patience, within
from probe.proof import Broken, Found
from probe.target import Part, Target

UNREACHED = frozenset({502, 503, 504})  # answers of a front without the relay behind it
_MAX_HEAD = 16 * 1024
_MAX_BODY = 16 * 1024
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class HttpAnswer:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def words(self) -> str:
        """The body's first words, for a message."""
        return excerpt(self.body)


def excerpt(body: bytes) -> str:
    """Return at most 80 printable characters of a page."""
    text = " ".join(html.unescape(_TAG.sub(" ", body.decode("utf-8", "replace"))).split())
    return "".join(char for char in text if char.isprintable())[:80]


class BadAnswer(Exception):
    """The peer's bytes are no HTTP answer, or one that exceeds all bounds."""


async def ask(
    stream: BoundedStream, host: str, path: str, headers: tuple[tuple[str, str], ...] = ()
) -> HttpAnswer:
    """Send GET on an open stream, which stays usable, and read the answer.

    Raises BadAnswer, OSError.
    """
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    request = h11.Request(
        method="GET", target=path, headers=[("Host", host), ("User-Agent", "derpfleet"), *headers]
    )
    await stream.send((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    status, fields, body = 0, {}, b""
    try:
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.read())
            elif isinstance(event, h11.Response):
                status = event.status_code
                fields = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            if isinstance(event, h11.EndOfMessage) or len(body) > _MAX_BODY:
                return HttpAnswer(status, fields, body)
    except (h11.RemoteProtocolError, Flooded) as error:
        raise BadAnswer(str(error)) from None


def authority(host: str, port: int, default_port: int) -> str:
    """Return `host`, with the port unless it is the scheme's own: the Host header as Go's client
    writes it."""
    name = f"[{host}]" if ":" in host else host
    return name if port == default_port else f"{name}:{port}"


async def check_probe(target: Target, stream: BoundedStream, patience: Patience) -> Found[None]:
    """Check that /derp/probe answers as DERP servers do: 200 and any origin allowed.

    Raises Broken.
    """
    host = authority(target.domain, target.https_port, 443)
    url = f"https://{host}/derp/probe"
    answer = await _patiently(target, stream, url, (), patience)
    _behind(target, url, answer)
    if answer.status != 200:
        raise Broken(
            f"{url} answered {answer.status}: {answer.words}".rstrip(": "),
            cause="another web server, or another site of it, answers for this name",
            next=target.redeploy(Part.FRONT, "proxy / of that name to the relay"),
        )
    if answer.headers.get("access-control-allow-origin") != "*":
        raise Broken(
            f"{url} answered 200 with "
            f"{f'a page: {answer.words}' if answer.body else 'an answer that no DERP server gives'}",
            cause="not a DERP server: another site answers every path (a relay allows any origin here)",
            next=target.redeploy(Part.FRONT, "proxy / of that name to the relay"),
        )
    ahead = ahead_of(answer.headers.get("date"), datetime.now(UTC))
    data = {} if ahead is None else {"clock_ahead_s": round(ahead.total_seconds())}
    return Found(None, f"200 from {url}", apart(ahead), data)


async def check_generate_204(
    target: Target, stream: BoundedStream, address: str, port: int, patience: Patience
) -> Found[None]:
    """Make the captive-portal check by address, as clients do: 204, and the challenge comes back.

    Raises Broken.
    """
    host = authority(address, port, 80)
    challenge = f"ts_{address}"
    url = f"http://{host}/generate_204"
    answer = await _patiently(target, stream, url, (("X-Tailscale-Challenge", challenge),), patience)
    _behind(target, url, answer)
    if answer.status != 204:
        moved = f" to {answer.headers['location'][:80]}" if "location" in answer.headers else ""
        raise Broken(
            f"{url} answered {answer.status}{moved}",
            cause=(
                "the default site of port 80 answers by address, and it is not the relay's: "
                "clients will suspect a captive portal"
            ),
            next=_step_before(target, address)
            + target.redeploy(
                Part.FRONT,
                "make the relay's site the default server of port 80, or set canport80: false in the map",
            ),
        )
    if answer.headers.get("x-tailscale-response") != f"response {challenge}":
        raise Broken(
            f"{url} answered 204 without X-Tailscale-Response: response {challenge}",
            cause="another server answers 204 by itself: clients will suspect a captive portal",
            next=target.redeploy(
                Part.FRONT, "pass /generate_204 on to the relay, with its X-Tailscale-Challenge header"
            ),
        )
    return Found(None, f"204 and the challenge from {url}")


def _step_before(target: Target, address: str) -> str:
    """Return the step that is needed before a deploy helps, or "".

    Our server answers for the addresses of the site file, unless another site has no name but the
    address.
    """
    if not (target.managed and target.fronted):
        return ""
    if address not in (target.ipv4, target.ipv6, target.domain):
        return f"set hosts.{target.name}.{'ipv6' if ':' in address else 'ipv4'} to {address}, then "
    return "give that site its own server_name, or let it pass /generate_204 on to the relay, then "


def _behind(target: Target, url: str, answer: HttpAnswer) -> None:
    """Raise Broken when only the front answered, not the relay behind it."""
    if answer.status in UNREACHED:
        raise unreached(target, f"{url} answered {answer.status}")


def unreached(target: Target, detail: str) -> Broken:
    """Return the fault of a front that answers, and does not reach the relay behind it."""
    return Broken(
        detail,
        cause=(
            "the front works, and the relay behind it is down, or SELinux keeps the front from it "
            "(on the host: ausearch -m avc -ts recent)"
        ),
        next=target.redeploy(Part.RELAY, "start the relay behind the proxy", unchanged=target.restart()),
    )


async def _patiently(
    target: Target, stream: BoundedStream, url: str, headers: tuple[tuple[str, str], ...], patience: Patience
) -> HttpAnswer:
    parts = urlsplit(url)
    step = target.redeploy(Part.FRONT, f"curl -v {url}", unchanged=target.restart())
    late = Broken(
        f"{url} gave no whole answer in {patience.http_s:g} s",
        cause="the front hangs, or its backend does",
        next=step,
    )

    def cut(error: OSError) -> Broken:
        cause = "the connection was cut instead of answered"
        return Broken(f"{url}: {error.strerror or error}", cause=cause, next=step)

    try:
        async with within(patience.http_s, late, cut):
            return await ask(stream, parts.netloc, parts.path, headers)
    except BadAnswer as error:
        cause = "the server there does not speak HTTP, or its answer exceeds all bounds"
        raise Broken(f"{url}: {error}", cause=cause, next=step) from None
