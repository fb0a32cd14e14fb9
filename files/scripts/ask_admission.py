"""Ask an admission controller about a node key, as the relay of this host does: `URL KEY`.

Prints JSON: `step` is where it failed (name, connection, TLS, time, status, answer), or "".
`detail` says how. `allow` is the answer, `ms` its time, `clock` this host's time, `date` the
controller's.
"""

import http.client
import json
import socket
import ssl
import sys
import time
from urllib.parse import urljoin, urlsplit

LIMIT = 5.0


class NoAnswer(Exception):
    pass


def connected(host, port):
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NoAnswer("name", "%s: %s" % (host, error.strerror or error))
    failed = []
    for place in places:
        try:
            return socket.create_connection(place[4][:2], LIMIT / len(places)), "; ".join(failed)
        except OSError as error:
            failed.append("%s port %d: %s" % (place[4][0], port, error.strerror or error))
    raise NoAnswer("connection", "; ".join(failed))


def ask(url, key, hops=3):
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    line, detail = connected(parts.hostname, port)
    line.settimeout(LIMIT)
    talk = http.client.HTTPConnection(parts.hostname, port)
    try:
        if secure:
            line = ssl.create_default_context().wrap_socket(line, server_hostname=parts.hostname)
        talk.sock = line
        path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        body = json.dumps({"NodePublic": key, "Source": "127.0.0.1"})
        talk.request("POST", path, body, {"Content-Type": "application/json"})
        answer = talk.getresponse()
        said = answer.read(4096)
    except socket.timeout:
        raise NoAnswer("time", "no answer in %g s" % LIMIT)
    except ssl.SSLError as error:
        raise NoAnswer("TLS", str(getattr(error, "verify_message", "") or error))
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer("connection", "cut: %s" % error)
    if answer.status in (307, 308) and hops and answer.getheader("Location"):
        return ask(urljoin(url, answer.getheader("Location")), key, hops - 1)
    if answer.status != 200:
        raise NoAnswer("status", "HTTP %d" % answer.status)
    try:
        allow = {name.lower(): value for name, value in json.loads(said.decode()).items()}.get("allow", False)
    except (ValueError, AttributeError):
        raise NoAnswer("answer", repr(said[:80]))
    return {"step": "", "detail": detail, "allow": bool(allow), "date": answer.getheader("Date") or ""}


began = time.time()
try:
    found = ask(*sys.argv[1:])
except NoAnswer as error:
    found = {"step": error.args[0], "detail": error.args[1]}
print(json.dumps(dict(found, ms=(time.time() - began) * 1000, clock=time.time())))
