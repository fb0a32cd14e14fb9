"""Packages of Debian and its relatives: apt-get and dpkg."""

import glob
import hashlib
import os
import re
import time

from agent.locks import lock_holder
from agent.tools import link_all, must, read_bytes, run, sha256_of

QUIETLY = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
OPTIONS = (
    *("-o", "DPkg::Lock::Timeout=60"),
    *("-o", "Dpkg::Options::=--force-confold"),
    *("-o", "Acquire::Retries=3"),
)
OURS = "/etc/apt/sources.list.d/derpfleet-*"  # files of sources that resources of a plan wrote


class Apt:
    """The apt family. Its verbs raise Failed, and none waits for a lock."""

    PROGRAM = "apt-get"
    # Words of apt when a source gives other bytes than it should.
    LIES = (
        *("BADSIG", "NO_PUBKEY", "EXPKEYSIG", "REVKEYSIG", "is not signed", "Hash Sum mismatch"),
        "Hashes of expected file",
        *("File has unexpected size", "Clearsigned file isn't valid"),
    )
    LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")

    def __init__(self, root):
        self.root = root
        self.options = OPTIONS
        self.lists = root + "/var/lib/apt/lists"
        self.places = [root + "/etc/apt/sources.list", root + "/etc/apt/sources.list.d/*"]
        self.parts = ""  # the folder that stands in for sources.list.d

    def use(self, folder, text):
        """Use the sources in `text` and ours, not the host's. Keep their index below `folder`."""
        self.parts, self.lists = folder + "/sources.list.d", folder + "/lists"
        os.makedirs(self.parts)
        os.makedirs(self.lists + "/partial")
        with open(self.parts + "/derpfleet.list", "w") as file:
            file.write(text.replace("{folder}", folder))
        self.places = [self.parts + "/*", self.root + OURS]
        self.options = OPTIONS + (
            *("-o", "Dir::Etc::sourcelist=/dev/null"),
            *("-o", "Dir::Etc::sourceparts=" + self.parts),
            *("-o", "Dir::State::lists=" + self.lists),
            *("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="),  # the host's stay
            *("-o", "APT::Update::Error-Mode=any"),
        )

    def lock_holder(self):
        """Return the program that works with packages now, or ""."""
        return lock_holder(self.root + name for name in self.LOCKS)

    def installed(self, *names):
        """Return the set of those packages among `names` that are installed."""
        form = "${Package} ${db:Status-Status}\\n"
        out = run(["dpkg-query", "--show", "--showformat", form] + list(names))[1]
        return {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}

    def install(self, names):
        self._apt_get("install", "--no-install-recommends", *names)

    def is_as_packaged(self, path, package):
        """Whether the file at `path` is what the package has there as a configuration file."""
        out = run(["dpkg-query", "--show", "--showformat", "${Conffiles}\\n", package])[1]
        digest = hashlib.md5(read_bytes(self.root + path) or b"").hexdigest()
        return bool(re.search(r"^\s*%s %s\b" % (re.escape(path), digest), out, re.M))

    def restore(self, path, package):
        """Put back the missing file at `path`, and the package's other missing ones."""
        self._apt_get("install", "--reinstall", "-o", "Dpkg::Options::=--force-confmiss", package)

    def refresh(self):
        """Read the index of all sources anew."""
        if self.parts:
            link_all(self.root + OURS, self.parts)
        self._apt_get("update")

    def sources(self):
        """Return {path: sha256} of the files that name the sources.

        A resource of the same run may have added one.
        """
        paths = [path for place in self.places for path in glob.glob(place)]
        return {path: sha256_of(path) for path in paths if os.path.isfile(path)}

    def index_age_s(self):
        times = [os.path.getmtime(path) for path in glob.glob(self.lists + "/*Packages*")]
        return time.time() - max(times) if times else float("inf")

    def finish_interrupted(self):
        """Finish the work that a power cut interrupted, and unpack half unpacked packages again.

        Until then apt refuses all work.
        """
        updates = self.root + "/var/lib/dpkg/updates"
        if os.path.isdir(updates) and any(name.isdigit() for name in os.listdir(updates)):
            run(["dpkg", "--force-confold", "--configure", "--pending"], 1800, QUIETLY)
        out = run(["dpkg-query", "--show", "--showformat", "${binary:Package} ${db:Status-Eflag}\\n"])[1]
        torn = [line.split()[0] for line in out.splitlines() if line.endswith(" reinstreq")]
        if torn:
            self._apt_get("install", "--reinstall", *torn)

    def _apt_get(self, *words):
        argv = ["apt-get", "--quiet", "--quiet", "--assume-yes"] + list(self.options + words)
        must(argv, 1800, QUIETLY)
