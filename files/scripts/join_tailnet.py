"""Join a tailnet: `TAILSCALE SOCKET STATE LOGIN_SERVER [NAME KEY_FILE]`.

Prints the state of that tailscaled, and ends with 0 if it runs in the tailnet of that login server:
"" for one that is not there, "Down", "Elsewhere", or tailscaled's own word, such as NeedsLogin.
One that is down and has never joined needs a login, too.
With a name it joins first. The file with the auth key may be missing, and is removed in any case.
"""

import base64
import json
import os
import subprocess
import sys
import time

LIMIT = 60
UP = ("--reset", "--accept-dns=false", "--accept-routes=false", "--shields-up", "--timeout=%ds" % LIMIT)
KEYS = ("authkey", "auth key", "auth-key", "api key", "invalid key")


def run(words):
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        return 127, "%s: %s" % (words[0], error.strerror)
    said = process.communicate()[0]
    return process.returncode, said.decode(errors="replace")


def parsed(call, *words):
    try:
        return dict(json.loads(run(call + list(words))[1]))
    except (ValueError, TypeError):
        return {}


def has_joined(folder):
    """Whether it is in a tailnet by its own file. One that cannot be read may be."""
    try:
        with open(os.path.join(folder, "tailscaled.state")) as file:
            stored = json.load(file)
        if "_profiles" in stored:
            return bool(json.loads(base64.b64decode(stored["_profiles"]).decode()))
        return bool(stored) and "_machinekey" not in stored  # a sealed file has neither
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError):
        return True


def state_of(call, folder, server):
    state = parsed(call, "status", "--json", "--peers=false").get("BackendState")
    if not state and os.path.isdir(folder):
        return "Down" if has_joined(folder) else "NeedsLogin"
    if not state:
        return ""
    if state == "Running" and parsed(call, "debug", "prefs").get("ControlURL", "").rstrip("/") != server:
        return "Elsewhere"
    return state


def answers(call):
    return parsed(call, "status", "--json", "--peers=false").get("BackendState", "") not in ("", "NoState")


def join(call, folder, server, name, key_file):
    deadline = time.time() + 10
    while not answers(call) and time.time() < deadline:
        time.sleep(0.2)
    words = call + ["up", "--login-server=" + server, "--hostname=" + name] + list(UP)
    key = None
    if os.path.exists(key_file):
        words.append("--auth-key=file:" + key_file)
        with open(key_file) as file:
            key = file.read().strip()
    if key and state_of(call, folder, server) == "Elsewhere":
        # `up` would use the auth key for the old node's key and for a new one, and it may be for
        # one use.
        run(["timeout", "20"] + call + ["logout"])
    if state_of(call, folder, server) == "Elsewhere":
        words += ["--force-reauth", "--accept-risk=all"]
    status, said = run(words)
    if status:
        why = (said.replace(key, "(auth key)") if key else said).strip()
        health = parsed(call, "status", "--json", "--peers=false").get("Health") or []
        sys.exit(explained(state_of(call, folder, server), why, server, health, "" if key else folder))


def explained(state, why, server, health, joined_before):
    if joined_before and state == "NeedsLogin":
        step = (
            "the login server %s no longer knows this node, and no auth key was sent, as it had joined "
            "before: run on this host `systemctl stop derpfleet-tailscaled; rm -r %s/*`, then deploy again"
            % (server, joined_before)
        )
    elif any(word in why.lower() for word in KEYS):
        step = (
            "the login server %s refuses the auth key: it is expired, used up, or another tailnet's. Make a "
            "new one (headscale preauthkeys create, or Settings, Keys in Tailscale's console) and put it "
            "where relay.tailscaled.auth_key of the site file leads" % server
        )
    elif state == "NeedsMachineAuth":
        step = "the login server %s waits for an administrator to approve this node: approve it" % server
    else:
        step = "the login server %s did not let it in: can this host reach it, and trust its TLS?" % server
    return "\n".join([why] + [str(line)[:300] for line in health[:3]] + [step])


call = [sys.argv[1], "--socket=" + sys.argv[2]]
try:
    if len(sys.argv) > 5:
        join(call, *sys.argv[3:7])
finally:
    if len(sys.argv) > 6 and os.path.exists(sys.argv[6]):
        os.unlink(sys.argv[6])
state = state_of(call, *sys.argv[3:5])
print(state)
sys.exit(state != "Running")
