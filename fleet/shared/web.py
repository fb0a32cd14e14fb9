"""Ask over https: certificates verified, proxies of the environment used, no redirect followed."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from urllib.parse import urlsplit

from control.web import NoWebAnswer, WebAnswer, WebQuestion
from inventory.secrets import Secret

TIMEOUT_S = 30  # of the connection, and of each wait for more
WHOLE_S = 60
SIZE_MAX = 4 << 20  # bytes of a body


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer: a key, or a URL that is a secret, goes nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


def fetch(question: WebQuestion) -> WebAnswer:
    """Return the answer, whatever its status. Raises NoWebAnswer."""
    headers = {name: _revealed(value) for name, value in question.headers.items()}
    data = _revealed(question.body).encode() or None
    request = urllib.request.Request(question.url, data, headers, method=question.method)  # noqa: S310
    ends = time.monotonic() + WHOLE_S
    try:
        try:
            answer = urllib.request.build_opener(_NoRedirect()).open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            found = {name.lower(): value for name, value in answer.headers.items()}
            return WebAnswer(status=answer.status, headers=found, body=_body(answer, ends))
    except (OSError, HTTPException, ValueError) as error:
        why = str(getattr(error, "reason", "") or error) or type(error).__name__
    raise NoWebAnswer(
        f"{urlsplit(question.url).hostname} did not answer",
        where=f"{question.method} {question.url}",
        why=why,
        next="check that this machine reaches it and that its clock is right; https_proxy counts",
    )


def _revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _body(answer: HTTPResponse | urllib.error.HTTPError, ends: float) -> bytes:
    """Return the whole body. Raises ValueError when it is too long, or not there in time."""
    parts, size = [], 0
    while part := answer.read1(64 << 10):
        parts.append(part)
        size += len(part)
        if size > SIZE_MAX:
            raise ValueError(f"the answer is longer than {SIZE_MAX >> 20} MiB")
        if time.monotonic() > ends:
            raise ValueError(f"the answer is not whole after {WHOLE_S} s")
    if answer.length:
        raise ValueError(f"the answer ends {answer.length} bytes early")
    return b"".join(parts)
