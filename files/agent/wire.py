"""Events out, messages in: one JSON object a line over standard output and input."""

import json
import os
import queue
import re
import threading
import time
import zlib

from agent.tools import remove, sha256_of

DAMAGED = "it arrived damaged, or was changed while it was sent: its sha256 is not %s..."
PIECE = object()  # a part of a content has come
PART = ".part"  # ends the name of a content that is not complete
SOON_S = 0.2  # between two packets of events that can wait


class ControllerGone(Exception):
    """The controller hung up."""

    def __init__(self):
        Exception.__init__(self, "the controller is gone")


class Refused(Exception):
    """Nothing more is done: what, where, why and the next step, for the controller.

    An empty step is the controller's own, for a disk that is at fault or a message that is.
    """

    def __init__(self, what, where, why, next_step=""):
        Exception.__init__(self, what)
        self.what, self.where, self.why, self.next_step = what, where, why, next_step


class Wire:
    """Events out, messages in.

    A thread reads standard input, so a stop or a hang-up is noticed at any time.
    """

    def __init__(self, stdin, stdout):
        self.stdin, self.stdout = stdin, stdout
        self.stopped = ""  # why no further resource is started
        self.is_alone = False  # nobody listens any more
        self.messages = queue.Queue()
        self.lock = threading.Lock()
        self.seq, self.started = 0, time.monotonic()
        self.flushed = 0  # when the last event left
        self.incoming = None  # where blobs are written; set once the lock is held

    def listen(self):
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for line in iter(self.stdin.readline, b""):
                message = json.loads(line.decode())
                if not isinstance(message, dict):
                    raise ValueError("it is no object")
                if "stop" in message:
                    self.stopped = "stopped by the controller"
                    continue
                if "blob" in message:
                    self._read_blob(message)
                self.messages.put(message)
            end = ControllerGone()
        except (ControllerGone, Refused) as error:
            end = error
        except Exception as error:  # a thread that died would leave the agent waiting, with the lock
            end = Refused("a message was not understood", "", "%s: %s" % (type(error).__name__, error))
        self.stopped, self.is_alone = self.stopped or str(end), True
        self.messages.put(end)

    def _read_blob(self, message):
        """Keep the content that follows its message.

        Raises ControllerGone, and keeps its beginning for the next run. Raises Refused, and keeps
        nothing.
        """
        if not re.match(r"[0-9a-f]{64}\Z", message["blob"]) or self.incoming is None:
            raise ValueError("a content that was not asked for")
        path = os.path.join(self.incoming, message["blob"])
        part = path + PART
        try:
            self._receive(part, message)
            if sha256_of(part) != message["blob"]:
                raise ValueError(DAMAGED % message["blob"][:12])
            os.rename(part, path)
        except (ValueError, OSError, zlib.error) as error:
            remove(part)
            where = self.incoming if isinstance(error, OSError) else ""
            raise Refused("a content cannot be kept", where, str(error))

    def _receive(self, path, message):
        left, start = message["size"], message.get("from", 0)
        if not all(type(number) is int and number >= 0 for number in (left, start)):
            raise ValueError("its size is %r, from %r" % (left, start))
        inflate = zlib.decompressobj() if message.get("z") else None
        with open(path, "r+b" if start else "wb") as out:
            os.fchmod(out.fileno(), 0o600)
            there = out.seek(0, os.SEEK_END)
            if start > there:  # else its beginning would be a hole
                raise ValueError("it goes on at byte %d, and %d are here" % (start, there))
            out.truncate(start)
            out.seek(start)
            while left:
                piece = self.stdin.read(min(left, 1 << 16))
                if not piece:
                    raise ControllerGone()
                left -= len(piece)
                self.messages.put(PIECE)
                out.write(inflate.decompress(piece) if inflate else piece)
            if inflate:
                out.write(inflate.flush())
            out.flush()
            os.fsync(out.fileno())

    def next(self, within_s=None):
        """Return the next message. Raises ControllerGone, Refused when no more will come.

        ControllerGone as well when the controller sends nothing for `within_s`: it may have
        vanished, and sshd notices that after hours.
        """
        try:
            message = self.messages.get(timeout=within_s)
            while message is PIECE:
                message = self.messages.get(timeout=within_s)
        except queue.Empty:
            message = ControllerGone()
        if isinstance(message, Exception):
            self.messages.put(message)  # no more will come for whoever asks next, either
            raise message
        return message

    def send(self, event, soon=False, **fields):
        """Send an event at once, and those that wait. With `soon` it may wait for a later one.

        Each flush is a packet. It wakes two threads of the controller, and costs it 0.4 ms.
        """
        with self.lock:
            now = time.monotonic()
            self.seq += 1
            fields.update(event=event, seq=self.seq, t=round(now - self.started, 3))
            try:
                self.stdout.write(json.dumps(fields, sort_keys=True).encode() + b"\n")
                if not soon or now - self.flushed >= SOON_S:
                    self.stdout.flush()
                    self.flushed = now
            except (OSError, ValueError):  # the resource in hand is still finished
                self.stopped, self.is_alone = self.stopped or "the controller is gone", True
