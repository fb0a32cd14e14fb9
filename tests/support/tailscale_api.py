"""A stand-in for Tailscale's API of policies: one tailnet, over https on loopback.

It keeps the policy as text, with an ETag of it, and answers as Tailscale's own documents and its
gitops-pusher have it. `tests/control/tailscale/test_gitops.py` holds it to that program.
`python -m tests.support.tailscale_api FOLDER` serves FOLDER/policy.hujson until its input ends, and
prints its URL.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from control.hujson import NotHujson, parse
from lab.certificates import make_server_certificate

WRITES, READS, CLIENT, CLIENT_SECRET = "tskey-api-writes", "tskey-api-reads", "client1", "tskey-client-secret"
TAILNET = "example.com"
MOVED = "precondition failed, invalid old hash"
_KNOWN = {
    *("groups", "hosts", "acls", "ssh", "tagowners", "derpmap", "tests", "grants", "autoapprovers"),
    *("nodeattrs", "postures", "ipsets", "randomizeclientport", "disableipv4", "onecgnatroute"),
}


def sum_of(text: str) -> str:
    """Return the ETag of a text, without its quotes."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Tailnet:
    """The tailnet's policy, and the calls so far as `METHOD path status`.

    `others`: what somebody else writes, each right after the policy was read. `bodies`: those that
    were sent. `etag_of`: of a text.
    """

    text: str
    etag_of: Callable[[str], str] = sum_of
    url: str = ""
    ca: Path = Path()
    others: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=lambda: {WRITES: "write", READS: "read"})
    lock: threading.Lock = field(default_factory=threading.Lock)
    file: Path | None = None  # where the text is kept as well

    @property
    def writes(self) -> int:
        """Return how often the policy was written by a client."""
        return sum(call.startswith("POST") and call.endswith("/acl 200") for call in self.calls)

    def problem(self, text: str) -> str:
        """Return why a policy is not accepted, or ""."""
        try:
            policy = parse(text).plain()
        except NotHujson as error:
            return str(error)
        if not isinstance(policy, dict):
            return "line 1, column 1: a policy is an object"
        for key in policy:
            if key.lower() not in _KNOWN:
                return f'json: unknown field "{key}"'
        derpmap = next((value for key, value in policy.items() if key.lower() == "derpmap"), None) or {}
        regions = next((value for key, value in derpmap.items() if key.lower() == "regions"), None) or {}
        for id, region in regions.items():
            names = {key.lower(): value for key, value in (region or {}).items()}
            if region is not None and str(names.get("regionid")) != id:
                return f"DERPMap region {id} has RegionID {names.get('regionid')}"
            if region is not None and not names.get("nodes"):
                return f"DERPMap region {id} has no nodes"
        return ""


@contextmanager
def tailnet(folder: Path, text: str, **more: Any) -> Iterator[Tailnet]:
    """Serve a tailnet with this policy until the block ends. Its CA is in a file under `folder`."""
    state = Tailnet(text, **more)
    ca, certificate, key = make_server_certificate("api.derp.lab", IPv4Address("127.0.0.1"))
    state.ca = folder / "api-ca.pem"
    state.ca.write_bytes(ca)
    (folder / "api.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "api.pem")

    class OfThisTailnet(_Handler):
        tailnet = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), OfThisTailnet)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    tailnet: Tailnet

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._answer(*self._read())

    def do_POST(self) -> None:
        body = self._body()
        self.tailnet.bodies.append(body)
        if self.path == "/api/v2/oauth/token":
            self._answer(*self._token(body))
        else:
            self._answer(*self._written(body))

    def _role(self) -> str:
        kind, _, word = self.headers.get("Authorization", "").partition(" ")
        key = base64.b64decode(word).decode().partition(":")[0] if kind == "Basic" else word
        return self.tailnet.tokens.get(key, "")

    def _refused(self) -> tuple[int, Any] | None:
        if not self._role():
            return 401, {"message": "API token invalid"}
        _, _, name, *_ = self.path.removeprefix("/api/").split("/")
        return None if name in ("-", TAILNET) else (404, {"message": "tailnet not found"})

    def _read(self) -> tuple[int, Any]:
        if refused := self._refused():
            return refused
        with self.tailnet.lock:
            text = self.tailnet.text
            if self.tailnet.others:
                self.tailnet.text = self.tailnet.others.pop(0)
        return 200, text

    def _written(self, body: str) -> tuple[int, Any]:
        if refused := self._refused():
            return refused
        why = self.tailnet.problem(body)
        if self.path.endswith("/acl/validate"):
            return 200, {"message": why} if why else {}
        if self._role() != "write":
            return 403, {"message": "calling actor does not have enough permissions to perform this function"}
        with self.tailnet.lock:
            match = self.headers.get("If-Match", "").strip('"')
            if match and match != self.tailnet.etag_of(self.tailnet.text):
                return 412, {"message": MOVED}
            if why:
                return 400, {"message": why}
            self.tailnet.text = body
            if self.tailnet.file:
                self.tailnet.file.write_text(body)
        return 200, body

    def _token(self, body: str) -> tuple[int, Any]:
        fields = {key: values[0] for key, values in parse_qs(body).items()}
        basic = self.headers.get("Authorization", "").removeprefix("Basic ")
        id, _, secret = base64.b64decode(basic).decode().partition(":")
        given = (fields.get("client_id", id), fields.get("client_secret", secret))
        if given != (CLIENT, CLIENT_SECRET):
            return 401, {"message": "API token invalid"}
        self.tailnet.tokens["an-access-token"] = "write"
        return 200, {"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 3600}

    def _body(self) -> str:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found.decode()

    def _answer(self, status: int, content: Any) -> None:
        self.tailnet.calls.append(f"{self.command} {self.path} {status}")
        is_text = isinstance(content, str)
        data = (content if is_text else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/hujson" if is_text else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if is_text:
            self.send_header("ETag", f'"{self.tailnet.etag_of(content)}"')
        self.end_headers()
        self.wfile.write(data)


def main(folder: Path) -> None:
    """Serve the folder's policy until the input ends."""
    file = folder / "policy.hujson"
    with tailnet(folder, file.read_text(), file=file) as net:
        sys.stdout.write(f"{net.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
