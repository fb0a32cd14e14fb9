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
    {"plan": 1, "mode": "apply",              ->
     "contents": {"<sha256>": "<zlib, base64>"},
     ...}
                                              <-     {"event": "want", "blobs": ["<sha256>", ...],
                                                      "partial": {"<sha256>": [n, "<sha256>"]}}
    {"blob": "<sha256>", "size": n, "z": 0,   ->     followed by n bytes (zlib when z), which come
     "from": m}                                      after the first m of the content
                                              <-     diff, result, heartbeat, waiting,
                                                     confirm ... done
                                              or     {"event": "refused", "why": "...", ...}
    {"stop": 1}                               ->     finish the resource in hand, then done
    {"history": 1}                            ->
                                              <-     {"event": "history", "z": "<generations>"}
    {"lease": 1}                              ->
                                              <-     {"event": "leased", ...}
                                              or     {"event": "locked", ...}
    {"note": [{...}, ...], "begins": false}   ->     (as often as needed)
                                              <-     {"event": "noted"}

A plan with "arm": {"within_s": ..., ...} becomes a generation of the host, once it is confirmed.
When it has changed anything, its end is

                                              <-     {"event": "armed", ...}
    {"hold": 1}                               ->     wait for another within_s (as often as needed)
    {"keep": 1, "proof": {...}}               ->
                                              <-     {"event": "kept", ...}, done
    or {"back": 1}, a hang-up, or silence     ->
                                              <-     going_back, diff, result ..., back, done
    or {"leave": 1}                           ->     done: it stays as it is, unconfirmed

"mode": "prepare" fixes what nothing in service uses yet, such as a release, keeps the contents of
the rest, and leaves it for the next plan. A "hello" with a "fence" that is lower than one from
before gets "locked".

{"plan": 1, "stored": 11, ...} is the way back to a generation: {"event": "stored", ...}, and then
as with any plan, but nothing is sent to the host.

A message or content that cannot be used is refused. The event's "where" is a path when the host's
disk is the reason, else "".

The facts of the hello have the outline of the generations as well. A plan brings the small contents
that none of them has, and so saves a turn.

Facts are JSON, zlib, base64. For every resource, wanted() and present() return flat dicts. Their
difference is the diff. fix(keys) removes it, and present() again proves that. The previous state
goes to the journal under /var/lib/derpfleet first. When the controller is gone, the agent finishes
the resource in hand. An armed plan is taken back then; else the next run converges from there.

A plan has the specs of its resources, and
"left_out": [{"id": ..., "restart_on": [...], "reload_on": [...], "on_change": [...]}, ...],
the resources that --only keeps out of the plan although changes in it make them act. Their restarts
are owed on disk like any other, and paid by a run that has them.
"""

import errno
import glob
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager

from agent.armed import go_back_after_crash, settle
from agent.converge import CONTENT_WITHIN_S, converge, fetch_blobs, take_contents
from agent.facts import asked_facts, packed, standard_facts
from agent.host import Host
from agent.kinds import KINDS
from agent.lease import Lease, overtaken
from agent.run_folder import RunFolder
from agent.way_back import WayBack
from agent.wire import ControllerGone, Refused, Wire

VERSION = 1
HEARTBEAT_S = 5
# How long the controller may say nothing while it has the host's lock. It may build a release
# before a plan, which takes minutes.
PLAN_WITHIN_S = 1800
# The same for the holder of the lease, who has nothing to build and says something every 15 s.
LEASE_WITHIN_S = 60
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the journal has no room: not our defect


def take_lock(folder, name, message, host):
    """Return this lock of the host for the run, or None after reporting its holder."""
    lock, holder = folder.lock(name, {"who": message.get("who", ""), "run": message["run"]})
    if lock is None:
        who, since = holder.get("who", "an unknown user"), holder.get("since", 0)
        host.wire.send("locked", who=who, since=since, in_force=host.in_force())
    return lock


def heartbeat(host):
    """Say every few seconds which resource is in hand, also while a second plan is carried out."""
    while True:
        time.sleep(HEARTBEAT_S)
        if host.now_doing:
            host.wire.send("heartbeat", id=host.now_doing)


def full(error):
    """Return the refusal for a disk without room."""
    # An error of a write does not name its file.
    where = error.filename or "/var/lib/derpfleet or /run/derpfleet"
    return Refused("the host's disk is full or read-only", where, error.strerror)


@contextmanager
def explained(host):
    """Add to a refusal which state the host is in."""
    try:
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise full(error)
    except Refused as refused:
        refused.why = "; ".join(filter(None, (refused.why, host.in_force())))
        raise


def carry_out(host, message, answer):
    """Carry out a plan, the controller's or a stored one, and wait for its word if it is armed."""
    mode, arm = message["mode"], message.get("arm")
    stored = "stored" in message
    if stored:
        take_way_back(host, message)
    else:
        resources = [KINDS[spec["kind"]](spec, host) for spec in message["resources"]]
        host.take(resources, message["left_out"])
    if mode != "check":
        host.wire.incoming = host.journal.base + "/incoming"
        host.begin()
        take_contents(host, message.get("contents", {}))
    if arm:
        host.unconfirmed.begin(run=host.journal.run_id, since=time.time(), **head_of(arm))
    try:
        if not stored:
            fetch_blobs(host, mode)
        counts = converge(host, mode)
        failed = counts["failed"] or host.wire.stopped
        if arm and mode == "apply" and may_arm(host, failed):
            counts = settle(host, arm, counts, answer)
    except (ControllerGone, Refused):
        raise
    except Exception:
        if arm and mode == "apply":
            go_back_after_crash(host)
        raise
    finally:
        if mode != "check":
            host.forget_secrets()
            host.packages.forget_source()
    if mode == "apply" and not failed:
        for path in glob.glob(host.wire.incoming + "/*"):
            os.unlink(path)
    host.wire.send("done", counts=counts, stopped=host.stopped)


def head_of(arm):
    return {word: arm[word] for word in ("who", "verb", "plan")}


def may_arm(host, failed):
    """Whether there is something to keep, or to go back from.

    Without a generation a plan that failed has neither.
    """
    if host.generations.newest():
        return bool(host.unconfirmed.head())
    return not failed


def take_way_back(host, message):
    """Begin with the way to a stored generation, and report it.

    Raises Refused, before anything is changed, for a generation that cannot be brought back and for
    files that were edited since.
    """
    mode, number = message["mode"], message["stored"]
    way, newest = WayBack(host, number), host.generations.newest()
    host.take(way.resources, way.dependents)
    way.refuse_gaps()
    drift = way.drift(message.get("removed", ()))
    if drift and mode == "apply" and not message.get("force"):
        what = "nothing was changed: the host is not as generation %d left it" % newest
        why = "edited by hand: " + ", ".join(drift)
        see = "invoke rollback --to %d --dry-run shows the differences; --force overwrites them" % number
        raise Refused(what, "", why, see)
    ids, words = [resource.id for resource in way.resources], ("at", "who", "verb", "plan", "about")
    known = {word: way.record.get(word) for word in words}
    host.wire.send(
        "stored", generation=number, newest=newest, ids=ids, drift=drift, stays=way.stays, z=packed(known)
    )


def serve(wire):
    hello = wire.next(CONTENT_WITHIN_S)
    root = hello.get("root", "")
    host, lease, folder = Host(wire, root, hello["run"]), None, RunFolder(root)
    lock = take_lock(folder, "lock", hello, host) if hello.get("lock", True) else True
    newer = lock and overtaken(root, hello["fence"], hello["who"]) if hello.get("fence") else None
    if newer:
        wire.send("locked", who=newer["who"], since=newer["since"], in_force=host.in_force())
    if lock is None or newer:
        return
    threading.Thread(target=heartbeat, args=(host,), daemon=True).start()

    def answer(message):
        if "history" in message:
            return wire.send("history", z=packed(host.history()))
        return wire.send("facts", z=packed(asked_facts(root, message)))

    with folder.scratch() as scratch:
        wire.incoming = scratch
        facts = asked_facts(root, hello)
        facts.update(standard_facts(), confirmed=host.generations.outline())
        wire.send("hello", v=VERSION, z=packed(facts))
        while True:
            message = wire.next(LEASE_WITHIN_S if lease else PLAN_WITHIN_S)
            if "ask" in message or "history" in message:
                answer(message)
            elif "lease" in message:
                held = take_lock(folder, "rollout.lock", hello, host)
                if held is None:
                    return
                lease = Lease(root, held)
                wire.send("leased", number=lease.number, z=packed(lease.ledger()))
            elif "note" in message and lease:
                lease.note(message["note"], message["begins"])
                wire.send("noted")
            elif "plan" in message:
                with explained(host):
                    carry_out(host, message, answer)
            else:
                return


def refuse(wire, refused):
    step = refused.next_step
    wire.send("refused", what=refused.what, where=refused.where, why=refused.why, next=step)


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
        refuse(wire, refused)
        status = 1
    except Exception as error:  # the controller gets every error in full
        if isinstance(error, OSError) and error.errno in FULL:
            refuse(wire, full(error))
        else:
            wire.send("crash", traceback=traceback.format_exc())
        status = 1
    # The reading thread may be blocked in a read; a normal exit would wait for its lock.
    os._exit(status)
