"""State that the resources of one run share."""

import glob
import os

from agent.answers import KeptAnswers
from agent.generations import Generations, contents_of, digests_of, is_kept, shared_of
from agent.journal import Journal
from agent.packages import Packages
from agent.systemd import Systemd
from agent.tools import http_get, remove
from agent.unconfirmed import Unconfirmed
from agent.wire import PART, Refused


class Host:
    """The plan's resources, the state that is read once for all of them, and the changes so far."""

    def __init__(self, wire, root, run_id):
        self.wire, self.root = wire, root
        self.journal = Journal(root, run_id)
        self.generations = Generations(self.journal.base)
        self.unconfirmed = Unconfirmed(self.journal)
        self.watched = {}  # service id -> [(watch, status before)]
        self.now_doing = ""
        self.is_going_back = False  # to a generation, by itself: nobody may be there any more
        self.not_kept = []  # the specs with contents that no generation keeps, of all plans so far
        self.take([], [])

    def take(self, resources, left_out):
        """Begin with a plan, the session's first or a further one.

        `left_out`: {"id", "restart_on", ...} of resources that --only left out of the plan, or of
        the plan that is undone. A change of this run makes them act later.
        """
        self.resources, self.left_out = resources, left_out
        self.not_kept += [resource.spec for resource in resources if not is_kept(resource.spec)]
        self.answers = KeptAnswers()
        self.packages = Packages(self)
        self.units = Systemd(self.answers)
        self.left = set()  # the ids that differ and are not fixed, in check mode and in prepare mode
        self.would_owe = {}  # {id: action} that these would cause

    @property
    def stopped(self):
        """Why no further resource is started, or ""."""
        return "" if self.is_going_back else self.wire.stopped

    def alike(self, resource):
        """Return the resources of the same kind, in the plan's order."""
        return [other for other in self.resources if other.spec["kind"] == resource.spec["kind"]]

    def dependents(self, resource_id):
        """Yield (id, action) of every resource that acts when this one changes."""
        for spec in [resource.spec for resource in self.resources] + self.left_out:
            for key, action in (("restart_on", "restart"), ("reload_on", "reload"), ("on_change", "run")):
                if resource_id in spec.get(key, ()):
                    yield spec["id"], action
                    break

    def owed(self, resource):
        """Return "restart", "reload", "run" or "", owed by this run or by one that did not end."""
        return self.journal.owed(resource.id) or self.would_owe.get(resource.id, "")

    def blob(self, digest):
        """Return the path of the content with this sha256, for when it has arrived."""
        kept = self.journal.backup(digest)
        return kept if os.path.exists(kept) else os.path.join(self.wire.incoming, digest)

    def begin(self):
        """Remove the secrets, contents and halves of files that a killed run has left."""
        self.unconfirmed.remove_halves()
        self._prune()
        specs = [resource.spec for resource in self.resources]
        usable = {digest for spec in specs if is_kept(spec) for digest in contents_of(spec)}
        for path in glob.glob(self.wire.incoming + "/*"):
            if os.path.basename(path).replace(PART, "") not in usable:
                os.unlink(path)

    def forget_secrets(self):
        """Remove the secrets that were kept for this run's own use, of all its plans."""
        self._prune()
        for spec in self.not_kept:
            for end in ("", PART):
                remove(os.path.join(self.wire.incoming, spec["content_sha256"]) + end)

    def _prune(self):
        """Remove the backups that nothing needs any more.

        All stay when a generation cannot be read: a newer version may know what it needs.
        """
        states, lost = self.unconfirmed.states().values(), self.unconfirmed.lost().values()
        try:
            needed = self.generations.digests() | digests_of(states, all_of_them=True)
            needed.update(was["sha256"] for was in lost if "sha256" in was)
            needed.update(digest for resource in self.resources for digest in shared_of(resource.spec))
        except Refused:
            return
        self.journal.prune({spec["id"] for spec in self.not_kept}, needed)

    def history(self):
        """Return what people want to know of the generations, and of the host before them.

        "lost": the ids of what was a file of others, whose content is not kept.
        """
        found = self.generations.found().values()
        files = [entry for entry in found if entry["was"].get("type") == "file"]
        lost = [entry["spec"]["id"] for entry in files if not self._has(entry["was"].get("sha256"))]
        generations, left = self.generations.history(), self.unconfirmed.head()
        since = self.generations.since()
        return {"generations": generations, "unconfirmed": left, "since": since, "lost": lost}

    def _has(self, digest):
        return digest is not None and os.path.exists(self.journal.backup(digest))

    def in_force(self):
        """Return in words which state the host is in, "" for one that was never confirmed."""
        newest, head = self.generations.newest(), self.unconfirmed.head()
        if head:
            return "in force are changes of %s that nobody has confirmed, after generation %d" % (
                head["who"],
                newest,
            )
        return "generation %d is in force" % newest if newest else ""

    def record_watched(self):
        """Note how other sites answer before anything is changed."""
        for resource in self.resources:
            if resource.spec.get("watch"):
                self.watched[resource.id] = [(watch, http_get(watch)[0]) for watch in resource.spec["watch"]]
