"""Ask an admission controller about a node key, as the relay of this host does: `URL KEY`.

Prints JSON: `step` is where it failed (name, connection, TLS, time, status, answer), or "".
`detail` says how. `allow` is the answer, `ms` its time, `clock` this host's time, `date` the
controller's.
"""

import http.client
import json
import signal
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
    except (OSError, UnicodeError) as error:
        raise NoAnswer("name", "%s: %s" % (host, getattr(error, "strerror", None) or error))
    failed = []
    for place in places:
        try:
            return socket.create_connection(place[4][:2], LIMIT / len(places)), "; ".join(failed)
        except OSError as error:
            failed.append("%s port %d: %s" % (place[4][0], port, error.strerror or error))
    raise NoAnswer("connection", "; ".join(failed))


def too_late(*_):
    raise NoAnswer("time", "no answer in %g s" % LIMIT)


def next_url(url, answer):
    """Return where a redirect leads. The relay does not go from https to http either."""
    try:
        found = urljoin(url, answer.getheader("Location"))
        parts, before = urlsplit(found), urlsplit(url)
        leads = parts.hostname and parts.port != 0 and parts.scheme in ("https", before.scheme)
    except ValueError:
        leads = False
    if not leads:
        raise NoAnswer("status", "HTTP %d to %s" % (answer.status, answer.getheader("Location")))
    return found


def allowed(said):
    """Return the answer as the relay reads it: the first document counts, null is no."""
    try:
        found = json.JSONDecoder().raw_decode(said.decode("utf-8", "replace").lstrip(" \t\r\n"))[0]
        members = {name.lower(): value for name, value in ({} if found is None else found).items()}
    except (ValueError, AttributeError, RecursionError):
        raise NoAnswer("answer", repr(said[:80]))
    allow = members.get("allow")
    if allow is not None and not isinstance(allow, bool):
        raise NoAnswer("answer", repr(said[:80]))
    return bool(allow)


def ask(url, key, hops=3):
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    line, detail = connected(parts.hostname, port)
    line.settimeout(LIMIT)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)  # for the whole answer, which may drip
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
        too_late()
    except ssl.SSLError as error:
        raise NoAnswer("TLS", str(getattr(error, "verify_message", "") or error))
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer("connection", "cut: %s" % error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if answer.status in (307, 308) and hops and answer.getheader("Location"):
        return ask(next_url(url, answer), key, hops - 1)
    if answer.status != 200:
        raise NoAnswer("status", "HTTP %d" % answer.status)
    found = {"step": "", "detail": detail, "allow": allowed(said)}
    return dict(found, date=answer.getheader("Date") or "")


signal.signal(signal.SIGALRM, too_late)
began = time.time()
try:
    found = ask(*sys.argv[1:])
except NoAnswer as error:
    found = {"step": error.args[0], "detail": error.args[1]}
print(json.dumps(dict(found, ms=(time.time() - began) * 1000, clock=time.time())))
