"""image, container."""

import hashlib
import json

from agent.kind import Kind, difference
from agent.restart import Restartable
from agent.tools import Failed, must, run, tail


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

    def is_ahead(self):
        return self.spec["present"]

    def fix(self, keys):
        if not self.spec["present"]:
            must(["docker", "image", "rm"] + self._unused())
        elif self.spec.get("content_sha256"):
            must(["docker", "load", "--input", self.host.blob(self.spec["content_sha256"])], 600)
        else:
            must(["docker", "pull", "--quiet", self.spec["ref"]], 1800)


def remove_unkept(host):
    """Remove the images that we brought and no kept generation has, unless a container uses them.

    The container before the present one may be such: then the next call finds the image again.
    """
    removed = []
    for entry in host.generations.readable(0)["found"].values():
        spec, was = entry["spec"], entry["was"]
        if spec["kind"] != "image" or was["present"] == "yes" or host.generations.has(spec["id"]):
            continue
        image = Image(dict(spec, present=False), host)
        try:
            if difference(image):
                image.fix(["present"])
                removed.append(spec["id"])
        except Failed:  # a container began to use it
            continue
    host.generations.forget(removed)


class Container(Restartable):
    """A container, replaced as a whole.

    The new one has the name `new` until it is healthy. The one before stays as `former`, stopped,
    until the next one replaces it: a new one that does not become healthy is removed, and the
    former one runs again. A run that dies leaves no container of the name itself, or the one
    before.
    """

    LABEL = "derpfleet.definition"

    def __init__(self, spec, host):
        Restartable.__init__(self, spec, host)
        self.name = spec["container"]
        self.new, self.former = self.name + "-new", self.name + "-former"

    def _definition(self):
        parts = [self.spec["image"], self.spec["arguments"], self.spec["command"]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def wanted(self):
        if not self.spec["running"]:
            return {"running": "no"}
        return {"running": "yes", "definition": self._definition(), "owed": "nothing"}

    def present(self):
        if not self.spec["running"]:  # a stopped container is to be removed as well
            there = [name for name in (self.name, self.new, self.former) if self._inspect(name)]
            return {"running": "yes" if there else "no"}
        owed = self.host.owed(self) or "nothing"
        said = self._inspect(self.name, '{{.State.Running}} {{index .Config.Labels "%s"}}' % self.LABEL)
        if not said:
            return {"running": "no", "owed": owed}
        running, _, definition = said.partition(" ")
        return {"running": "yes" if running == "true" else "no", "definition": definition, "owed": owed}

    def _inspect(self, name, form="{{.State.Status}}"):
        """Return what this format shows of the container; "" when there is none."""
        status, out, _ = run(["docker", "container", "inspect", "--format", form, name])
        return "" if status else out.strip()

    def given_back(self, was):
        return dict(self.spec, running=False) if was["running"] == "no" else None

    def fix(self, keys):
        if self.spec["running"]:
            self._set_aside()
            self.converge("start")
            return
        run(["docker", "stop", "--time", "10", self.name], 30)
        for name in (self.name, self.new, self.former):
            self._remove(name)
        self.host.journal.paid(self.id)

    def _remove(self, name):
        run(["docker", "rm", "--force", name], 30)

    def _set_aside(self):
        """Stop the present container and keep it as `former`. Raises Failed.

        Without one, `former` stays: a run that died has set it aside.
        """
        self._remove(self.new)
        if self._inspect(self.name):
            self._remove(self.former)
            must(["docker", "stop", "--time", "10", self.name], 30)
            must(["docker", "rename", self.name, self.former])
            # Docker starts a stopped one that is to run always when it starts itself.
            must(["docker", "update", "--restart", "no", self.former])

    def converge(self, verb):
        try:
            Restartable.converge(self, verb)
        except Failed as failure:
            failure.why += self._bring_back()
            raise
        must(["docker", "rename", self.new, self.name])

    def _bring_back(self):
        """Remove the new container and start the former one again. Return words about it."""
        self._remove(self.new)
        if self._inspect(self.former):
            try:
                must(["docker", "rename", self.former, self.name])
                must(["docker", "update", "--restart", self._policy(), self.name])
                must(["docker", "start", self.name], 60)
            except Failed as failure:
                return "\nthe former container does not start: %s: %s" % (failure.what, failure.why)
            self.await_answers()
        return "\nput back: the former container" if self._inspect(self.name) == "running" else ""

    def _policy(self):
        words = self.spec["arguments"]
        return words[words.index("--restart") + 1] if "--restart" in words else "no"

    def act(self, verb):
        label = "%s=%s" % (self.LABEL, self._definition())
        argv = ["docker", "run", "--detach", "--name", self.new, "--label", label]
        must(argv + list(self.spec["arguments"]) + [self.spec["image"]] + list(self.spec["command"]), 120)

    def problem(self):
        state = self._inspect(self.new, "{{.State.Status}}")
        return Restartable.problem(self) if state == "running" else "container is %s" % (state or "gone")

    def log(self):
        _, out, err = run(["docker", "logs", "--tail", "12", self.new], 10)
        return tail(out + err)

    def undo(self, verb):
        self._bring_back()
