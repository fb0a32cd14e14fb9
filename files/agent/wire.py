"""Events out, messages in: one JSON object a line over standard output and input."""

import json
import os
import queue
import threading
import time
import zlib

from agent.tools import sha256_of


class Gone(Exception):
    """The controller hung up."""


class Wire:
    """Events out, messages in. A thread reads standard input, so that a stop or a hang-up is noticed at any time."""

    def __init__(self, stdin, stdout):
        self.stdin, self.stdout = stdin, stdout
        self.stopped = ""  # why no further resource is to be begun
        self.messages = queue.Queue()
        self.lock = threading.Lock()
        self.seq, self.started = 0, time.monotonic()
        self.incoming = None  # where blobs are written; set once the lock is held

    def listen(self):
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for line in iter(self.stdin.readline, b""):
                message = json.loads(line.decode())
                if "stop" in message:
                    self.stopped = "stopped by the controller"
                    continue
                if "blob" in message:
                    self._read_blob(message)
                self.messages.put(message)
        except (ValueError, OSError, zlib.error) as error:
            self.stopped = "message not understood: %s" % error
        self.stopped = self.stopped or "the controller is gone"
        self.messages.put(None)

    def _read_blob(self, message):
        path, left = os.path.join(self.incoming, message["blob"]), message["size"]
        inflate = zlib.decompressobj() if message.get("z") else None
        with open(path + ".part", "wb") as out:
            os.fchmod(out.fileno(), 0o600)
            while left:
                piece = self.stdin.read(min(left, 1 << 16))
                if not piece:
                    raise OSError("cut in the middle of a blob")
                left -= len(piece)
                out.write(inflate.decompress(piece) if inflate else piece)
            if inflate:
                out.write(inflate.flush())
            out.flush()
            os.fsync(out.fileno())
        if sha256_of(path + ".part") != message["blob"]:
            raise ValueError("blob %s arrived damaged" % message["blob"][:12])
        os.rename(path + ".part", path)

    def next(self):
        message = self.messages.get()
        if message is None:
            raise Gone(self.stopped)
        return message

    def send(self, event, **fields):
        with self.lock:
            self.seq += 1
            fields.update(event=event, seq=self.seq, t=round(time.monotonic() - self.started, 3))
            try:
                self.stdout.write(json.dumps(fields, sort_keys=True).encode() + b"\n")
                self.stdout.flush()
            except (OSError, ValueError):  # nobody listens any more; what is in hand is still finished
                self.stopped = self.stopped or "the controller is gone"
