"""State that the resources of one run share."""

import glob
import os

from agent.journal import Journal
from agent.packages import Packages
from agent.systemd import Systemd
from agent.tools import http_get, remove
from agent.wire import PART


class Host:
    """The plan's resources, the state that is read once for all of them, and the changes so far."""

    def __init__(self, wire, root, run_id):
        self.wire, self.root = wire, root
        self.journal = Journal(root, run_id)
        self.packages = Packages(self)
        self.units = Systemd()
        self.resources = []
        # {"id", "restart_on", ...} of resources that --only left out of the plan.
        # A change of this run makes them act later.
        self.left_out = []
        self.changed = set()  # ids that this run changed
        self.watched = {}  # service id -> [(watch, status before)]
        self.would_owe = {}  # in check mode: {id: action} that the differences so far would cause
        self.now_doing = ""

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
        return os.path.join(self.wire.incoming, digest)

    def begin(self):
        """Open the journal, without secrets and contents that a killed run has left."""
        self.journal.open(self._secret())
        usable = {spec.get("content_sha256") for spec in self._specs(secret=False)}
        for path in glob.glob(self.wire.incoming + "/*"):
            if os.path.basename(path).replace(PART, "") not in usable:
                os.unlink(path)

    def forget_secrets(self):
        """Remove the secrets that were kept for this run's own use."""
        if self.journal.file:
            self.journal.prune(self._secret())
            for spec in self._specs(secret=True):
                for end in ("", PART):
                    remove(self.blob(spec["content_sha256"]) + end)

    def _specs(self, secret):
        specs = [resource.spec for resource in self.resources]
        return [spec for spec in specs if spec.get("secret", False) == secret]

    def _secret(self):
        return {spec["id"] for spec in self._specs(secret=True)}

    def record_watched(self):
        """Note how other sites answer before anything is changed."""
        for resource in self.resources:
            if resource.spec.get("watch"):
                self.watched[resource.id] = [(watch, http_get(watch)[0]) for watch in resource.spec["watch"]]
