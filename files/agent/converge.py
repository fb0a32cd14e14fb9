"""Converge the host to the resources of a plan, in order: compare, show, fix, compare again."""

import base64
import hashlib
import os
import time
import zlib

from agent.kind import difference
from agent.selinux import restore_labels
from agent.tools import Failed, sha256_of, write_atomically
from agent.wire import DAMAGED, PART, Refused

# A content comes at once, in pieces.
CONTENT_WITHIN_S = 120


def converge(host, mode):
    """Converge every resource in order. Return the counts by status.

    In prepare mode only what may be fixed ahead is fixed, and what differs besides is skipped.
    """
    wire, apply = host.wire, mode == "apply"
    counts, failed = {"ok": 0, "changed": 0, "failed": 0, "skipped": 0}, ""
    watched = not apply
    for resource in host.resources:
        started = time.monotonic()
        host.now_doing = resource.id
        report = {}
        if failed or host.stopped:
            status = "skipped"
            report["reason"] = "not reached: " + ("%s failed" % failed if failed else host.stopped)
        else:
            try:
                keys = difference(resource)
                if keys:
                    wire.send("diff", id=resource.id, keys=keys, text=resource.text_diff())
                    if apply and not watched:
                        host.record_watched()
                        watched = True
                    if apply or (mode == "prepare" and is_ready(host, resource)):
                        fix(host, resource, keys)
                    else:
                        host.left.add(resource.id)
                        host.would_owe.update(host.dependents(resource.id))
                status = "changed" if keys or resource.was_changed_earlier() else "ok"
                if mode == "prepare" and resource.id in host.left:
                    status, report["reason"] = "skipped", "left for the cut-over"
            except Failed as failure:
                status, failed = "failed", resource.id
                report.update(what=failure.what, why=failure.why)
            except OSError as error:
                status, failed = "failed", resource.id
                report.update(what="%s: %s" % (error.filename or resource.id, error.strerror), why="")
        counts[status] += 1
        ms = int((time.monotonic() - started) * 1000)
        is_news = status in ("changed", "failed")
        wire.send("result", soon=not is_news, id=resource.id, status=status, ms=ms, **report)
        if host.journal.file:
            host.journal.note(id=resource.id, status=status)
    if apply and not failed:
        host.units.finish()
    host.now_doing = ""
    return counts


def is_ready(host, resource):
    """Whether it may be fixed ahead, as may everything that it needs."""
    return resource.is_ahead() and not host.left.intersection(resource.spec["needs"])


def fix(host, resource, keys):
    host.journal.open()  # also for a change of no path, such as a package
    states = [host.journal.remember(resource.id, path) for path in resource.touches()]
    host.unconfirmed.remember(resource, resource.state_before(states))
    for dependent, action in host.dependents(resource.id):
        host.journal.owe(dependent, action, resource.id)
    host.units.after_touch(resource.touches())
    resource.fix(keys)
    restore_labels(resource.touches())
    left = difference(resource)
    if left:
        words = ["%s is %r, not %r" % (key, was, wanted) for key, (was, wanted) in sorted(left.items())]
        raise Failed("still not in the desired state after the fix", "\n".join(words))


def is_whole(path, digest):
    """Whether the content is at `path`. Other content, as a power cut leaves it, is removed."""
    if not os.path.exists(path):
        return False
    if sha256_of(path) == digest:
        return True
    os.unlink(path)
    return False


def lacking(host, mode):
    """Return [(resource, sha256), ...] of the contents to use, or in check mode to show, that are
    not on the host."""
    return [
        (resource, digest)
        for resource in host.resources
        for digest in (resource.shown_blobs() if mode == "check" else resource.blobs())
        if not is_whole(host.blob(digest), digest)
    ]


def partial(host, digests):
    """Return {sha256: [length, its sha256]} of contents whose beginning an earlier run has left."""
    parts = {digest: host.blob(digest) + PART for digest in digests}
    there = {digest: path for digest, path in parts.items() if os.path.isfile(path)}
    return {digest: [os.path.getsize(path), sha256_of(path)] for digest, path in there.items()}


def take_contents(host, contents):
    """Take the contents that came with the plan: {sha256: base64 of zlib}. Raises Refused."""
    for digest, packed in contents.items():
        try:
            content = zlib.decompress(base64.b64decode(packed))
        except (ValueError, zlib.error) as error:
            raise Refused("a content cannot be kept", "", str(error))
        if hashlib.sha256(content).hexdigest() != digest:
            raise Refused("a content cannot be kept", "", DAMAGED % digest[:12])
        path = os.path.join(host.wire.incoming, digest)
        write_atomically(path, content, 0o600, (os.getuid(), os.getgid()))


def fetch_blobs(host, mode):
    """Ask once for all missing contents. Wait for them."""
    blobs = list(dict.fromkeys(digest for _, digest in lacking(host, mode)))
    if blobs and mode != "check":
        host.journal.make_folders()
    host.wire.send("want", blobs=blobs, partial=partial(host, blobs))
    for _ in blobs:
        host.wire.next(CONTENT_WITHIN_S)
