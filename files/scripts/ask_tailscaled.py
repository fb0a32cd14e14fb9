"""Ask the tailscaled of this host about a node key, as the relay does: `SOCKET KEY`.

Prints JSON: `step` is where it failed (socket, login, age, localapi), or "". `detail` says how.
`allow` is whether it knows the key, `peers` the number of nodes that it knows, `key_left_s` the
time until its own key expires, where it does. `ms` is the time of all, `clock` this host's.
"""

import calendar
import http.client
import json
import socket
import sys
import time

LIMIT = 5.0
MOST = 32 << 20


class NoWhois(Exception):
    pass


def get(place, path):
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(LIMIT)
    talk = http.client.HTTPConnection("local-tailscaled.sock")
    talk.sock = line
    try:
        line.connect(place)
        talk.request("GET", "/localapi/v0/" + path, headers={"Tailscale-Cap": "145"})
        answer = talk.getresponse()
        return answer.status, answer.read(MOST)
    except socket.timeout:
        raise NoWhois("socket", "no answer in %g s" % LIMIT)
    except (OSError, http.client.HTTPException) as error:
        raise NoWhois("socket", getattr(error, "strerror", None) or str(error))
    finally:
        line.close()


def ask(place, key):
    code, said = get(place, "status")
    try:
        status = json.loads(said.decode())
        state, peers = status["BackendState"], len(status.get("Peer") or {})
        expiry = (status.get("Self") or {}).get("KeyExpiry")
        ends = calendar.timegm(time.strptime(expiry[:19], "%Y-%m-%dT%H:%M:%S")) if expiry else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoWhois("localapi", "HTTP %d: %r" % (code, said[:80]))
    if state != "Running":
        raise NoWhois("login", "it is in the state %s" % state)
    code, said = get(place, "whois?addr=" + key.replace(":", "%3A"))
    if code == 400 and b"addr" in said:
        raise NoWhois("age", "HTTP 400")
    if code not in (200, 404):
        raise NoWhois("localapi", "HTTP %d" % code)
    found = {"step": "", "detail": "", "allow": code == 200, "peers": peers}
    if ends is not None:
        found["key_left_s"] = ends - time.time()
    return found


began = time.time()
try:
    found = ask(*sys.argv[1:])
except NoWhois as error:
    found = {"step": error.args[0], "detail": error.args[1]}
print(json.dumps(dict(found, ms=(time.time() - began) * 1000, clock=time.time())))
