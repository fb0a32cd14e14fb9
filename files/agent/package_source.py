"""package_source: where packages come from in this run, in place of the host's own sources."""

import os

from agent.archives import unpack
from agent.kind import Kind
from agent.tools import remove

FOLDER = "/var/cache/derpfleet"  # apt downloads as a user of its own, who may not see our state


class PlannedSource(Kind):
    """It differs from nothing on the host: it is laid out when a package is to be installed."""

    def wanted(self):
        return {}

    def present(self):
        return {}

    def fix(self, keys):
        """Do nothing: nothing differs."""

    def blobs(self):
        digest = self.spec.get("content_sha256")
        return [digest] if digest and self.host.packages.are_lacking() else []

    def lay_out(self):
        """Unpack its packages below FOLDER, and return that. Raises Failed."""
        folder = self.host.root + FOLDER
        remove(folder)
        os.makedirs(folder + "/packages")
        if "content_sha256" in self.spec:
            unpack(self.host.blob(self.spec["content_sha256"]), folder + "/packages", self.spec["origin"])
        return folder
