"""Base of service and container."""

import time
from abc import abstractmethod

from agent.kind import Kind
from agent.tools import Failed, http_get, run, tail

FELT_S = 5  # a reload or a start takes effect after a moment


class Restartable(Kind):
    """Restarted once when one of its dependencies changed, then watched until healthy."""

    def await_health(self):
        deadline, problem = time.monotonic() + self.spec["timeout_s"], ""
        while True:
            problem = self.problem()
            if not problem:
                return
            if time.monotonic() > deadline:
                what = "%s did not become healthy within %d s" % (self.spec["id"], self.spec["timeout_s"])
                raise Failed(what, problem + "\n" + self.log())
            time.sleep(0.1)

    def problem(self):
        """Return the present problem, or ""."""
        for condition in self.spec["healthy"]:
            if condition["kind"] == "exec":
                status, out, err = run(condition["argv"], 10)
                if status:
                    return "%s: status %d: %s" % (" ".join(condition["argv"]), status, tail(err or out, 3))
                continue
            status, body, problem = http_get(condition)
            missing = [text for text in condition["contains"] if text not in body]
            if status != condition["status"]:
                return problem or "%s answered %d, not %d" % (condition["url"], status, condition["status"])
            if missing:
                return "%s does not contain %s" % (condition["url"], ", ".join(map(repr, missing)))
        return self.others_problem()

    def others_problem(self):
        """Return which other site answers differently than before this run, or ""."""
        for watch, before in self.host.watched.get(self.id, ()):
            status, _, problem = http_get(watch)
            if before and status != before:
                return "another site stopped answering as before: %s gave %d, now %s" % (
                    watch["url"],
                    before,
                    status or problem,
                )
        return ""

    def await_answers(self):
        """Wait some seconds until the previous version answers.

        Any answer will do: only the new version may have the page that is asked for.
        """
        asked = [condition for condition in self.spec["healthy"] if condition["kind"] == "http"]
        deadline = time.monotonic() + FELT_S
        while not all(http_get(condition)[0] for condition in asked) and time.monotonic() < deadline:
            time.sleep(0.1)

    def await_others(self):
        """Wait some seconds until other sites answer as before. Return the problem left, or ""."""
        deadline = time.monotonic() + FELT_S
        while self.others_problem() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.others_problem()

    @abstractmethod
    def act(self, verb):
        """Start, restart or reload, as `verb` says. Raises Failed."""

    @abstractmethod
    def undo(self, verb):
        """Do the same again with the previous files."""

    @abstractmethod
    def log(self):
        """Return the last lines of its log."""

    def _owe_others(self, restored):
        """Note that all who have acted on what is put back now have to act again."""
        for name in restored:
            for dependent, action in self.host.dependents(name):
                self.host.journal.owe(dependent, action, name)

    def converge(self, verb):
        """Act and wait for health. If that fails, put back the changes that led to it.

        Raises Failed then. A run that died may have made them.
        """
        try:
            self.act(verb)
            self.await_health()
        except Failed as failure:
            names = list(self.spec["restart_on"]) + list(self.spec.get("reload_on", ()))
            restored = self.host.journal.put_back(self.id, names)
            if restored:
                failure.why += "\nput back: " + ", ".join(restored)
                self.undo(verb)
                self._owe_others(restored)
                self.host.journal.paid(self.id)
                self.await_answers()
                left = self.await_others()
                failure.why += "\nand that did not help: " + left if left else ""
            raise
        self.host.journal.paid(self.id)
