"""package, through apt."""

import fcntl
import glob
import os
import re
import time

from agent.kind import Kind
from agent.tools import Failed, must, read_text, run, sha256_of

LOCK_WAIT_S = 600
INDEX_AGE_S = 24 * 3600
QUIETLY = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
APT_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")


class Package(Kind):
    def wanted(self):
        return {"installed": "yes"}

    def present(self):
        names = [resource.spec["package"] for resource in self.host.resources if isinstance(resource, Package)]
        return {"installed": "yes" if self.spec["package"] in self.host.packages.installed(names) else "no"}

    def was_changed_earlier(self):
        return self.spec["package"] in self.host.packages.installed_now

    def fix(self, keys):
        self.host.packages.install(self._batch())
        self.host.units.forget()  # packages bring units, and start them

    def _batch(self):
        """This one and every later missing package whose needs are met: one call of the package manager instead of many."""
        resources = self.host.resources
        met = {resource.id for resource in resources[: resources.index(self)]}
        later = [r for r in resources if isinstance(r, Package) and r is not self and set(r.spec["needs"]) <= met]
        return [self.spec["package"]] + [r.spec["package"] for r in later if r.present() != r.wanted()]


class PackageManager:
    """What is installed is read once and again after each change."""

    def __init__(self, host):
        self.host, self.root = host, host.root
        self.installed_now = set()
        self._installed = None
        self._read = None  # the sources that the index was made of in this run
        self._unread = ""  # why it was made of less than all of them

    def installed(self, names):
        if self._installed is None:
            out = run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n"] + names)[1]
            self._installed = {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}
        return self._installed

    def install(self, names):
        self._installed = None
        self.installed_now.update(names)
        self._await_lock()  # its end is no reason to try again
        read_before_a_change = self._read is not None and self._read != self._sources()
        if read_before_a_change or (self._read is None and self._index_age_s() > INDEX_AGE_S):
            self._update()
        try:
            return self._apt_install(names)
        except Failed:
            if self._read is not None:
                raise
            self._update()  # the index may name files that are gone by now
            return self._apt_install(names)

    def _update(self):
        """A source that is dead is remembered, and no reason to stop: what is wanted may come from another."""
        self._make_ready()
        self._unread = ""
        try:
            self._apt_get("update")
        except Failed as failure:
            self._unread = "\nbefore that, apt-get update had failed:\n" + failure.why
        self._read = self._sources()

    def _apt_install(self, names):
        self._make_ready()
        try:
            return self._apt_get("install", "--no-install-recommends", *names)
        except Failed as failure:
            failure.why += self._unread
            raise

    def _make_ready(self):
        self._await_lock()
        self._finish_interrupted()

    def _apt_get(self, *words):
        options = ["-o", "DPkg::Lock::Timeout=60", "-o", "Dpkg::Options::=--force-confold", "-o", "Acquire::Retries=3"]
        return must(["apt-get", "--quiet", "--quiet", "--assume-yes"] + options + list(words), 1800, QUIETLY)

    def _finish_interrupted(self):
        """After a power cut, apt refuses all work until dpkg has finished its own, and what was half unpacked is there anew."""
        updates = self.root + "/var/lib/dpkg/updates"
        if os.path.isdir(updates) and any(name.isdigit() for name in os.listdir(updates)):
            run(["dpkg", "--force-confold", "--configure", "--pending"], 1800, QUIETLY)
        out = run(["dpkg-query", "--show", "--showformat", "${binary:Package} ${db:Status-Eflag}\\n"])[1]
        torn = [line.split()[0] for line in out.splitlines() if line.endswith(" reinstreq")]
        if torn:
            self._apt_get("install", "--reinstall", *torn)

    def _sources(self):
        """Where packages come from, as it stands in apt's files now: a resource of the same run may have added to it."""
        paths = glob.glob(self.root + "/etc/apt/sources.list") + glob.glob(self.root + "/etc/apt/sources.list.d/*")
        return {path: sha256_of(path) for path in paths if os.path.isfile(path)}

    def _index_age_s(self):
        times = [os.path.getmtime(path) for path in glob.glob(self.root + "/var/lib/apt/lists/*Packages*")]
        return time.time() - max(times) if times else float("inf")

    def _await_lock(self):
        """Waits for whoever holds the package manager's lock, and says for whom. Nothing is in hand yet, so a stop ends the wait."""
        deadline, told = time.monotonic() + LOCK_WAIT_S, ""
        while True:
            holder = self._lock_holder()
            if not holder:
                return
            if self.host.wire.stopped:
                raise Failed("stopped while the package manager was locked", "held by " + holder)
            if time.monotonic() > deadline:
                raise Failed("the package manager is still locked after %d s" % LOCK_WAIT_S, "held by " + holder)
            if holder != told:
                self.host.wire.send("waiting", id=self.host.now_doing, reason="the package manager's lock is held by " + holder)
                told = holder
            time.sleep(0.5)

    def _lock_holder(self):
        for name in APT_LOCKS:
            try:
                handle = os.open(self.root + name, os.O_RDWR)
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
    """`apt-get (pid 123) of cloud-final.service`, from the kernel's table of locks."""
    for line in read_text("/proc/locks").splitlines():
        parts = line.split()
        if len(parts) > 5 and parts[5].endswith(":%d" % inode):
            pid = parts[4]
            units = re.findall(r"([^/\n]+\.service)", read_text("/proc/%s/cgroup" % pid))
            of = " of " + units[-1] if units else ""
            return "%s (pid %s)%s" % (read_text("/proc/%s/comm" % pid).strip(), pid, of)
    return "an unknown process"
