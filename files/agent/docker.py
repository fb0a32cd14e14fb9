"""image, container."""

import hashlib
import json

from agent.kind import Kind
from agent.restart import Restartable
from agent.tools import must, run, tail


class Image(Kind):
    """An image. An unwanted one stays while another program's container uses it."""

    def wanted(self):
        return {"present": "yes" if self.spec["present"] else "no"}

    def present(self):
        if not self.spec["present"]:
            return {"present": "yes" if self._unused() else "no"}
        return {"present": "yes" if self._is_there() else "no"}

    def _is_there(self):
        return run(["docker", "image", "inspect", self.spec["ref"]])[0] == 0

    def _unused(self):
        """Return the names of the images of this reference that no container uses."""
        ref = self.spec["ref"]
        if "@" in ref:
            names = [ref] if self._is_there() else []
        else:
            form = ["--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=" + ref]
            names = run(["docker", "image", "ls"] + form)[1].split()
        used = ["docker", "container", "ls", "--all", "--quiet", "--filter"]
        return [name for name in names if not run(used + ["ancestor=" + name])[1].strip()]

    def blobs(self):
        archive = self.spec.get("content_sha256")
        return [archive] if archive and self.present() != self.wanted() else []

    def fix(self, keys):
        if not self.spec["present"]:
            must(["docker", "image", "rm"] + self._unused())
        elif self.spec.get("content_sha256"):
            must(["docker", "load", "--input", self.host.blob(self.spec["content_sha256"])], 600)
        else:
            must(["docker", "pull", "--quiet", self.spec["ref"]], 1800)


class Container(Restartable):
    LABEL = "derpfleet.definition"

    def _definition(self):
        parts = [self.spec["image"], self.spec["arguments"], self.spec["command"]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def wanted(self):
        if not self.spec["running"]:
            return {"running": "no"}
        return {"running": "yes", "definition": self._definition(), "owed": "nothing"}

    def present(self):
        form = '{{.State.Running}} {{index .Config.Labels "%s"}}' % self.LABEL
        status, out, _ = run(["docker", "container", "inspect", "--format", form, self.spec["container"]])
        owed = self.host.owed(self) or "nothing"
        if status:
            return {"running": "no", "owed": owed}
        running, _, definition = out.strip().partition(" ")
        if not self.spec["running"]:
            return {"running": "yes"}  # a stopped container is to be removed as well
        return {"running": "yes" if running == "true" else "no", "definition": definition, "owed": owed}

    def given_back(self, was):
        return dict(self.spec, running=False) if was["running"] == "no" else None

    def fix(self, keys):
        self._remove()
        if self.spec["running"]:
            self.converge("start")
        else:
            self.host.journal.paid(self.id)

    def _remove(self):
        run(["docker", "stop", "--time", "10", self.spec["container"]], 30)
        run(["docker", "rm", "--force", self.spec["container"]], 30)

    def act(self, verb):
        label = "%s=%s" % (self.LABEL, self._definition())
        argv = ["docker", "run", "--detach", "--name", self.spec["container"], "--label", label]
        must(argv + list(self.spec["arguments"]) + [self.spec["image"]] + list(self.spec["command"]), 120)

    def problem(self):
        argv = ["docker", "container", "inspect", "--format", "{{.State.Status}}", self.spec["container"]]
        state = run(argv)[1].strip()
        return Restartable.problem(self) if state == "running" else "container is %s" % (state or "gone")

    def log(self):
        _, out, err = run(["docker", "logs", "--tail", "12", self.spec["container"]], 10)
        return tail(out + err)

    def undo(self, verb):
        run(["docker", "restart", self.spec["container"]], 60)
