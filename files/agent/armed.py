"""An armed plan: applied, and not yet confirmed. Only the controller's proof from outside keeps it.

Without that word in time, or when the controller hangs up, the host goes back to its newest
generation by itself.
"""

import os
import time
import traceback
from contextlib import suppress

from agent.converge import converge
from agent.docker import remove_unkept
from agent.generations import is_kept
from agent.tools import read_bytes, sha256_of
from agent.way_back import WayBack
from agent.wire import ControllerGone, Refused


def settle(host, arm, counts, answer):
    """Wait for the controller's word, and carry it out. Return the counts of what was done last.

    `arm`: {"within_s": ..., "who": ..., "verb": ..., "plan": ..., "about": ...}. `answer`: called
    with a message that asks for facts or for the history. Raises Refused when there is no room for
    the generation: the plan stays as it is then, unconfirmed.
    """
    newest = host.generations.newest()
    within_s, stopped = arm["within_s"], host.stopped
    host.wire.send("armed", counts=counts, generation=newest, within_s=within_s, stopped=stopped)
    word = _word(host, within_s, answer)
    if "keep" in word:
        try:
            keep(host, arm, counts, word["proof"])
        except OSError as error:
            what = "the new state is proved and in force, but the host cannot keep it as a generation"
            next_step = "look at df -h and dmesg on the host, make room, then run the deploy again"
            raise Refused(what, error.filename or host.journal.base, error.strerror, next_step)
    elif "leave" not in word and newest:
        return go_back(host, newest)
    return counts


def _word(host, within_s, answer):
    """Return the message with the controller's word. {"back": 1} without one in time."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            message = host.wire.next(max(0, deadline - time.monotonic()))
        except (ControllerGone, Refused):
            return {"back": 1}
        if "ask" in message or "history" in message:
            answer(message)
        elif "hold" in message:
            deadline = time.monotonic() + within_s
        else:
            return message


def keep(host, arm, counts, proof):
    """Make the plan the newest generation. Everything that it needs is on the host by now.

    A run that was killed after that, and before it forgot its changes, has made it already.
    """
    newest, run = host.generations.newest(), host.unconfirmed.head().get("run", "")
    for resource in host.resources:
        digest, path = resource.spec.get("content_sha256"), resource.path
        has_file = digest and path and is_kept(resource.spec) and os.path.isfile(path)
        if has_file and sha256_of(path) == digest:
            host.journal.back_up(digest, read_bytes(path))
    record = {word: arm[word] for word in ("who", "verb", "plan", "about")}
    specs = [resource.spec for resource in host.resources if not _is_used_up(resource)]
    record.update(at=time.time(), proof=proof, changes=counts["changed"], resources=specs, run=run)
    if "to" in arm:  # a way back: the things that it has removed are not its own
        record["resources"] = host.generations.read(arm["to"])["resources"]
    taken_back = "to" in arm and arm["to"] == newest  # only changes that nobody confirmed
    is_there = taken_back or host.generations.is_newest(run, arm["plan"])
    number = newest if is_there else host.generations.add(record, host.unconfirmed.states())
    host.generations.drop_oldest()
    host.unconfirmed.end()
    remove_unkept(host)
    host.wire.send("kept", generation=number)


def _is_used_up(resource):
    """Whether it was a secret for this run only, and a command took it: no way back needs it."""
    is_file = resource.spec["kind"] == "file"
    return is_file and not is_kept(resource.spec) and not os.path.lexists(resource.path)


def go_back(host, number):
    """Converge to a generation, whoever listens. Return the counts."""
    host.is_going_back = True
    way = WayBack(host, number)
    host.take(way.resources, way.dependents)
    ids = [resource.id for resource in way.resources]
    host.wire.send("going_back", generation=number, ids=ids, stays=way.stays)
    way.refuse_gaps()
    counts = converge(host, "apply")
    if not counts["failed"]:
        host.generations.note_images(host.unconfirmed.states())
        host.unconfirmed.end()
        remove_unkept(host)
        host.wire.send("back", generation=number)
    return counts


def go_back_after_crash(host):
    """Go back from the plan in hand, whose run ends by a defect of ours or of the host's disk.

    The journal has the reason. A crash on the way back leaves the rest to the next contact.
    """
    newest = host.generations.newest()
    if newest and host.unconfirmed.head() and not host.is_going_back:
        with suppress(Exception):
            host.journal.note(crash=traceback.format_exc())
            go_back(host, newest)
