"""The agent: bring one host to the state of a plan, and report every change.

It is sent over one SSH channel and never becomes a file on the host. Standard library only,
Python 3.6 and up.

It reads messages from standard input and writes events to standard output, one JSON object a line:

    controller                                       agent
    {"hello": 1, "files": [...], ...}         ->
                                              <-     {"event": "hello", "z": "<facts>", ...}
                                              or     {"event": "locked", ...}
    {"ask": 1, "files": [...]}                ->     (as often as needed)
                                              <-     {"event": "facts", "z": "<facts>"}
    {"plan": 1, "mode": "apply", ...}         ->
                                              <-     {"event": "want", "blobs": ["<sha256>", ...],
                                                      "partial": {"<sha256>": [n, "<sha256>"]}}
    {"blob": "<sha256>", "size": n, "z": 0,   ->     followed by n bytes (zlib when z), which come
     "from": m}                                      after the first m of the content
                                              <-     diff, result, heartbeat, waiting,
                                                     confirm ... done
                                              or     {"event": "refused", "why": "...", ...}
    {"stop": 1}                               ->     finish the resource in hand, then done

A message or content that cannot be used is refused. The event's "where" is a path when the host's
disk is the reason, else "".

Facts are JSON, zlib, base64. For every resource, wanted() and present() return flat dicts. Their
difference is the diff. fix(keys) removes it, and present() again proves that. The previous state
goes to the journal under /var/lib/derpfleet first. When the controller is gone, the agent finishes
the resource in hand, and the next run converges from there.

A plan has the specs of its resources, and
"left_out": [{"id": ..., "restart_on": [...], "reload_on": [...], "on_change": [...]}, ...],
the resources that --only keeps out of the plan although changes in it make them act. Their restarts
are owed on disk like any other, and paid by a run that has them.
"""

import errno
import fcntl
import glob
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback

from agent.facts import asked_facts, packed, standard_facts
from agent.host import Host
from agent.kind import difference
from agent.kinds import KINDS
from agent.selinux import restore_labels
from agent.tools import Failed, sha256_of
from agent.wire import PART, ControllerGone, Refused, Wire

VERSION = 1
HEARTBEAT_S = 5
# How long the controller may say nothing while it has the host's lock. It may build a release
# before a plan, which takes minutes. A content comes at once, in pieces.
PLAN_WITHIN_S = 1800
CONTENT_WITHIN_S = 120
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the journal has no room: not our defect


def take_lock(root, message, wire):
    """Return the host's lock for this run, or None after reporting its holder."""
    lock = open(root + "/run/derpfleet/lock", "a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        try:
            holder = json.loads(lock.read())
        except ValueError:
            holder = {}
        wire.send("locked", who=holder.get("who", "an unknown user"), since=holder.get("since", 0))
        return None
    lock.truncate(0)
    holder = {"who": message.get("who", ""), "since": time.time(), "run": message["run"]}
    lock.write(json.dumps(holder))
    lock.flush()
    return lock


def converge(host, mode):
    """Converge every resource in order. Return the counts by status."""
    wire, apply = host.wire, mode == "apply"
    counts, failed = {"ok": 0, "changed": 0, "failed": 0, "skipped": 0}, ""
    watched = not apply
    for resource in host.resources:
        started = time.monotonic()
        host.now_doing = resource.id
        report = {}
        if failed or wire.stopped:
            status = "skipped"
            report["reason"] = "not reached: " + ("%s failed" % failed if failed else wire.stopped)
        else:
            try:
                keys = difference(resource)
                if keys:
                    wire.send("diff", id=resource.id, keys=keys, text=resource.text_diff())
                    if apply and not watched:
                        host.record_watched()
                        watched = True
                    if apply:
                        fix(host, resource, keys)
                    else:
                        host.would_owe.update(host.dependents(resource.id))
                status = "changed" if keys or resource.was_changed_earlier() else "ok"
            except Failed as failure:
                status, failed = "failed", resource.id
                report.update(what=failure.what, why=failure.why)
            except OSError as error:
                status, failed = "failed", resource.id
                report.update(what="%s: %s" % (error.filename or resource.id, error.strerror), why="")
        counts[status] += 1
        ms = int((time.monotonic() - started) * 1000)
        wire.send("result", id=resource.id, status=status, ms=ms, **report)
        if host.journal.file:
            host.journal.note(id=resource.id, status=status)
    if apply and not failed:
        host.units.finish()
    host.now_doing = ""
    return counts


def fix(host, resource, keys):
    for path in resource.touches():
        host.journal.remember(resource.id, path)
    for dependent, action in host.dependents(resource.id):
        host.journal.owe(dependent, action)
    host.changed.add(resource.id)
    host.units.after_touch(resource.touches())
    resource.fix(keys)
    restore_labels(resource.touches())
    left = difference(resource)
    if left:
        words = ["%s is %r, not %r" % (key, was, wanted) for key, (was, wanted) in sorted(left.items())]
        raise Failed("still not in the desired state after the fix", "\n".join(words))


def heartbeat(host):
    while True:
        time.sleep(HEARTBEAT_S)
        host.wire.send("heartbeat", id=host.now_doing)


def is_whole(path, digest):
    """Whether the content is at `path`. Other content, as a power cut leaves it, is removed."""
    if not os.path.exists(path):
        return False
    if sha256_of(path) == digest:
        return True
    os.unlink(path)
    return False


def partial(host, digests):
    """Return {sha256: [length, its sha256]} of contents whose beginning an earlier run has left."""
    parts = {digest: host.blob(digest) + PART for digest in digests}
    there = {digest: path for digest, path in parts.items() if os.path.isfile(path)}
    return {digest: [os.path.getsize(path), sha256_of(path)] for digest, path in there.items()}


def fetch_blobs(host, mode):
    """Ask once for all missing contents to use, or in check mode to show. Wait for them."""
    lacking = []
    for resource in host.resources:
        for digest in resource.blobs() if mode == "apply" else resource.shown_blobs():
            if digest not in lacking and not is_whole(host.blob(digest), digest):
                lacking.append(digest)
    host.wire.send("want", blobs=lacking, partial=partial(host, lacking))
    for _ in lacking:
        host.wire.next(CONTENT_WITHIN_S)


def serve(wire):
    hello = wire.next(CONTENT_WITHIN_S)
    root = hello.get("root", "")
    os.makedirs(root + "/run/derpfleet", mode=0o700, exist_ok=True)
    lock = take_lock(root, hello, wire) if hello.get("lock", True) else True
    if lock is None:
        return
    host = Host(wire, root, hello["run"])
    with tempfile.TemporaryDirectory(prefix="derpfleet-", dir=root + "/run/derpfleet") as scratch:
        wire.incoming = scratch
        facts = asked_facts(root, hello)
        facts.update(standard_facts())
        wire.send("hello", v=VERSION, z=packed(facts))
        while True:
            message = wire.next(PLAN_WITHIN_S)
            if "ask" in message:
                wire.send("facts", z=packed(asked_facts(root, message)))
            elif "plan" in message:
                host.resources = [KINDS[spec["kind"]](spec, host) for spec in message["resources"]]
                host.left_out = message["left_out"]
                if message["mode"] == "apply":
                    wire.incoming = host.journal.base + "/incoming"
                    host.begin()
                try:
                    fetch_blobs(host, message["mode"])
                    threading.Thread(target=heartbeat, args=(host,), daemon=True).start()
                    counts = converge(host, message["mode"])
                finally:
                    host.forget_secrets()
                    if message["mode"] == "apply":
                        host.packages.forget_source()
                if message["mode"] == "apply" and not wire.stopped and not counts["failed"]:
                    for path in glob.glob(wire.incoming + "/*"):
                        os.unlink(path)
                wire.send("done", counts=counts, stopped=wire.stopped)
            else:
                return


def main():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)
    wire = Wire(sys.stdin.buffer, sys.stdout.buffer)
    wire.listen()
    status = 0
    try:
        serve(wire)
    except ControllerGone:
        status = 1
    except Refused as refused:
        wire.send("refused", what=refused.what, where=refused.where, why=refused.why)
        status = 1
    except Exception as error:  # the controller gets every error in full
        if isinstance(error, OSError) and error.errno in FULL:
            # An error of a write does not name its file.
            where = error.filename or "/var/lib/derpfleet or /run/derpfleet"
            what = "the host's disk is full or read-only"
            wire.send("refused", what=what, where=where, why=error.strerror)
        else:
            wire.send("crash", traceback=traceback.format_exc())
        status = 1
    # The reading thread may be blocked in a read; a normal exit would wait for its lock.
    os._exit(status)
