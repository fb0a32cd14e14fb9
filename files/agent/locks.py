"""The locks of package managers, and who holds them."""

import fcntl
import os
import re

from agent.tools import read_text


def lock_holder(paths):
    """Return the holder of the first of these lock files that is held, or ""."""
    for path in paths:
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(handle, fcntl.LOCK_UN)
        except OSError:
            return holder_of(os.fstat(handle).st_ino)
        finally:
            os.close(handle)
    return ""


def holder_of(inode):
    """Return the `holder` of the lock on this file, from the kernel's table of locks."""
    for line in read_text("/proc/locks").splitlines():
        parts = line.split()
        if len(parts) > 5 and parts[5].endswith(":%d" % inode):
            return holder(parts[4])
    return "an unknown process"


def holder(pid):
    """Return a process in words: `apt-get (pid 123) of cloud-final.service`."""
    units = re.findall(r"([^/\n]+\.service)", read_text("/proc/%s/cgroup" % pid))
    of = " of " + units[-1] if units else ""
    return "%s (pid %s)%s" % (read_text("/proc/%s/comm" % pid).strip(), pid, of)
