"""command."""

import os

from agent.kind import Kind
from agent.tools import must, run


class Command(Kind):
    def wanted(self):
        return {"done": "yes"}

    def present(self):
        spec = self.spec
        if self.host.owed(self):
            return {"done": "no, something that it depends on changed"}
        if spec["creates"] and os.path.lexists(self.host.root + spec["creates"]):
            return {"done": "yes"}
        if spec["unless"] and run(spec["unless"], spec["timeout_s"])[0] == 0:
            return {"done": "yes"}
        if not spec["creates"] and not spec["unless"]:
            return {"done": "yes"}
        return {"done": "no"}

    def is_ahead(self):
        """Whether it makes a part of a tree that is whole by now, such as compiled modules."""
        trees = [one for one in self.host.resources if one.spec["kind"] == "tree"]
        whole = [one.spec["path"] + "/" for one in trees if one.id not in self.host.left]
        return any(self.spec["creates"].startswith(path) for path in whole)

    def fix(self, keys):
        must(self.spec["argv"], self.spec["timeout_s"])
        self.host.journal.paid(self.id)
