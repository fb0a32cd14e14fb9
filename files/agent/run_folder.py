"""/run/derpfleet: the host's locks, and a folder for each run.

It goes with the last thing of ours on the host.
"""

import fcntl
import json
import os
import shutil
import time
from contextlib import contextmanager


class RunFolder:
    def __init__(self, root):
        self.path = root + "/run/derpfleet"
        self._state = root + "/var/lib/derpfleet"
        self._locks = []

    def lock(self, name, holder):
        """Take this lock until the run ends. Return (the open file, None), or (None, its holder).

        `holder`: {"who": ..., ...}, for those who come meanwhile.
        """
        while True:
            lock = self._opened(name)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                try:
                    return None, json.loads(lock.read())
                except ValueError:
                    return None, {}
            if _is_there(lock):
                break
            lock.close()
        lock.truncate(0)
        lock.write(json.dumps(dict(holder, since=time.time())))
        lock.flush()
        self._locks.append(lock)
        return lock, None

    def _opened(self, name):
        while True:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            try:
                return open("%s/%s" % (self.path, name), "a+")
            except FileNotFoundError:
                continue  # a run that has just ended took the folder away

    @contextmanager
    def scratch(self):
        """Yield a folder of this run. Remove it in the end, and ours if the host has nothing else
        of derpfleet."""
        try:
            folder = self._scratch()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            self._leave()

    def _scratch(self):
        while True:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            folder = "%s/derpfleet-%s" % (self.path, os.urandom(8).hex())
            try:
                os.mkdir(folder, 0o700)
                return folder
            except FileNotFoundError:
                continue

    def _leave(self):
        if os.path.exists(self._state):
            return
        for lock in self._locks:
            os.unlink(lock.name)
        try:
            os.rmdir(self.path)
        except OSError:
            pass  # another run is here


def _is_there(lock):
    """Whether the file is still at its path: its last holder may have removed it."""
    try:
        return os.path.samestat(os.stat(lock.name), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
