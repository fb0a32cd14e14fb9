"""Packages of Enterprise Linux, Fedora and Amazon Linux: dnf and rpm."""

import os
import re

from agent.locks import holder, lock_holder
from agent.tools import link_all, must, read_text, run, sha256_of

OPTIONS = ("--quiet", "--assumeyes", "--setopt=install_weak_deps=False")
OURS = "/etc/yum.repos.d/derpfleet-*"  # files of sources that resources of a plan wrote
# Else dnf waits for another dnf without end, and does not report it.
NO_WAIT = "--setopt=exit_on_lock=True"


class Dnf:
    """The dnf family. Its verbs raise Failed, and none waits for a lock."""

    PROGRAM = "dnf"
    # Words of dnf when a source gives other bytes than it should.
    LIES = ("GPG check FAILED", "is not signed", "checksum doesn't match", "repomd.xml GPG signature")
    # rpm's own, by place of its database. dnf fails at once when it is held.
    LOCKS = ("/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock")
    # dnf's own: each holds its process's id as long as the work lasts.
    PIDS = (
        "/var/lib/dnf/rpmdb_lock.pid",
        "/var/cache/dnf/metadata_lock.pid",
        "/var/cache/dnf/download_lock.pid",
    )

    def __init__(self, root):
        self.root = root
        self.options = OPTIONS
        self.repositories = ""  # the folder that stands in for yum.repos.d

    def use(self, folder, text):
        """Use the sources in `text` and ours, not the host's. Keep their index below `folder`."""
        self.repositories = folder + "/yum.repos.d"
        os.makedirs(self.repositories)
        with open(self.repositories + "/derpfleet.repo", "w") as file:
            file.write(text.replace("{folder}", folder))
        self.options = OPTIONS + (
            "--setopt=reposdir=" + self.repositories,
            "--setopt=cachedir=" + folder + "/dnf",
        )

    def lock_holder(self):
        """Return the program that works with packages now, or ""."""
        for path in self.PIDS:
            pid = read_text(self.root + path).strip()
            if pid.isdigit() and os.path.exists("/proc/" + pid):
                return holder(pid)
        return lock_holder(self.root + name for name in self.LOCKS)

    def installed(self, *names):
        """Return the set of those packages among `names` that are installed."""
        out = run(["rpm", "--query", "--queryformat", "%{NAME}\\n"] + list(names))[1]
        return set(names) & set(out.splitlines())

    def install(self, names):
        self._dnf("install", *names)

    def is_as_packaged(self, path, package):
        """Whether the file at `path` is what its package has there, whichever package that is."""
        form = "[%{FILENAMES} %{FILEDIGESTS}\\n]"
        out = run(["rpm", "--query", "--queryformat", form, "--file", path])[1]
        there = self.root + path
        digest = sha256_of(there) if os.path.isfile(there) else ""
        return bool(digest and re.search(r"^%s %s$" % (re.escape(path), digest), out, re.M))

    def restore(self, path, package):
        """Put back the missing file at `path` from its package, whichever that is."""
        owner = must(["rpm", "--query", "--queryformat", "%{NAME}", "--file", path])
        self._dnf("reinstall", owner)

    def refresh(self):
        """Read the index of all sources anew."""
        self._dnf("makecache")

    def sources(self):
        """Return nothing: dnf looks for changed sources at each call."""
        return {}

    def index_age_s(self):
        """Return 0: dnf reads an index again when it is too old."""
        return 0

    def finish_interrupted(self):
        """Do nothing: rpm's database has whole packages only."""

    def _dnf(self, *words):
        if self.repositories:
            link_all(self.root + OURS, self.repositories)
        must(["dnf"] + list(self.options) + [NO_WAIT] + list(words), 1800)
