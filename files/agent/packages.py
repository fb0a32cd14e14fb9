"""package, conffile: through the package manager of the host's family."""

import os
import shutil
import time

from agent.apt import Apt
from agent.dnf import Dnf
from agent.kind import Kind
from agent.package_source import FOLDER
from agent.paths import AtPath
from agent.tools import Failed, beside, remove

LOCK_WAIT_S = 600
INDEX_AGE_S = 24 * 3600

# One class for each family of distributions. The first whose PROGRAM is on the host is used.
FAMILIES = (Apt, Dnf)


def family_of(root):
    """Return the host's package manager. Raises Failed when the host has none that is known."""
    for family in FAMILIES:
        if shutil.which(family.PROGRAM):
            return family(root)
    known = ", ".join(family.PROGRAM for family in FAMILIES)
    raise Failed("this host has no package manager that derpfleet can use", "looked for: " + known)


class Package(Kind):
    """An installed package. With `creates`, that path in its place is as good."""

    def wanted(self):
        return {"installed": "yes"}

    def present(self):
        return self._among(self._installed())

    def _installed(self):
        """Return which packages of the plan are installed."""
        return self.host.packages.installed([one.spec["package"] for one in self.host.alike(self)])

    def _among(self, installed):
        """Return its state, where these packages are installed."""
        creates = self.spec.get("creates")
        is_there = creates and os.path.lexists(self.host.root + creates)
        return {"installed": "yes" if is_there or self.spec["package"] in installed else "no"}

    def is_ahead(self):
        return True

    def was_changed_earlier(self):
        return self.spec["package"] in self.host.packages.installed_now

    def fix(self, keys):
        batch = self._batch()
        for other in batch[1:]:
            self.host.unconfirmed.remember(other, {"installed": "no"})
        self.host.packages.install([resource.spec["package"] for resource in batch])

    def _batch(self):
        """Return this package and every later missing one whose needs are met.

        They are installed with one call of the package manager.
        """
        resources = self.host.resources
        met = {resource.id for resource in resources[: resources.index(self)]} - self.host.left
        later = [r for r in self.host.alike(self) if r is not self and set(r.spec["needs"]) <= met]
        installed = self._installed()
        return [self] + [one for one in later if one._among(installed) != one.wanted()]


class Conffile(AtPath):
    """A configuration file of a package, as the package has it."""

    def wanted(self):
        return {"content": "packaged"}

    def present(self):
        is_packaged = self.host.packages.family.is_as_packaged(self.spec["path"], self.spec["package"])
        changed = "changed" if os.path.lexists(self.path) else "absent"
        return {"content": "packaged" if is_packaged else changed}

    def fix(self, keys):
        self.host.packages.restore(self.spec["path"], self.spec["package"])


class Packages:
    """The packages of the host."""

    def __init__(self, host):
        self.host = host
        self.installed_now = set()
        self._family = None
        self._read = None  # the sources that this run has read the index of
        self._unread = ""  # why some of them could not be read
        self._source = None  # the plan's own, once it is in use

    @property
    def family(self):
        if self._family is None:
            self._family = family_of(self.host.root)
        return self._family

    def installed(self, names):
        return self.host.answers.of(self.family.installed, *names)

    def are_lacking(self):
        """Whether a package of the plan is not installed."""
        resources = [one for one in self.host.resources if one.spec["kind"] == "package"]
        return any(resource.present() != resource.wanted() for resource in resources)

    def forget_source(self):
        """Remove the files of the plan's own source, and those that a killed run has left."""
        remove(self.host.root + FOLDER)

    def install(self, names):
        self.installed_now.update(names)
        self._change(lambda: self.family.install(names))

    def restore(self, path, package):
        """Replace a configuration file by the package's own. If that fails, the file stays.

        Raises Failed.
        """
        place = self.host.root + path
        aside = beside(place)
        if os.path.lexists(place):
            os.rename(place, aside)
        try:
            self._change(lambda: self.family.restore(path, package))
        finally:
            if os.path.lexists(aside) and not os.path.lexists(place):
                os.rename(aside, place)
        remove(aside)

    def _change(self, action):
        """Run an action of the package manager, with an index that is new enough. Raises Failed."""
        self._use_source()
        self._await_lock()  # outside the try: a lock that is never released is not worth a retry
        read_before_a_change = self._read is not None and self._read != self.family.sources()
        if read_before_a_change or (self._read is None and self.family.index_age_s() > INDEX_AGE_S):
            self._refresh()
        try:
            self._attempt(action)
        except Failed:
            if self._read is not None:
                raise
            self._refresh()  # the index may name files that are gone by now
            self._attempt(action)

    def _use_source(self):
        """Use the plan's own source of packages, if it has one, and no other. Raises Failed."""
        found = [one for one in self.host.resources if one.spec["kind"] == "package_source"]
        if found and not self._source:
            self._source = found[0].spec
            self.family.use(found[0].lay_out(), self._source["sources"])

    def _of_source(self, failure):
        """Return the failure, in which the source is named, and whether it lies."""
        lies = any(words in failure.why for words in self.family.LIES)
        what = "other than what the distribution signed" if lies else failure.what
        return Failed("%s: %s" % (self._source["origin"], what), failure.why)

    def _refresh(self):
        """Read the index again. Remember a failure and go on: other sources may do."""
        self._make_ready()
        self._unread = ""
        try:
            self.family.refresh()
        except Failed as failure:
            if self._source:
                raise self._of_source(failure)
            self._unread = "\nbefore that, %s update had failed:\n%s" % (self.family.PROGRAM, failure.why)
        self._read = self.family.sources()

    def _attempt(self, action):
        self._make_ready()
        try:
            action()
        except Failed as failure:
            failure.why += self._unread
            raise self._of_source(failure) if self._source else failure

    def _make_ready(self):
        self._await_lock()
        self.family.finish_interrupted()

    def _await_lock(self):
        """Wait until no other program holds the package manager's lock, and report its holder.

        Nothing is in hand yet, so a stop ends the wait. Raises Failed.
        """
        deadline, reported = time.monotonic() + LOCK_WAIT_S, ""
        while True:
            holder = self.family.lock_holder()
            if not holder:
                return
            if self.host.stopped:
                raise Failed("stopped while the package manager was locked", "held by " + holder)
            if time.monotonic() > deadline:
                what = "the package manager is still locked after %d s" % LOCK_WAIT_S
                raise Failed(what, "held by " + holder)
            if holder != reported:
                reason = "the package manager's lock is held by " + holder
                self.host.wire.send("waiting", id=self.host.now_doing, reason=reason)
                reported = holder
            time.sleep(0.5)

