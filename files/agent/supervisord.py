"""program, which supervisord keeps alive."""

from agent.restart import Restartable
from agent.tools import must, run, tail

CONTROL, PATIENCE_S = "supervisorctl", 90
RUNNING = "RUNNING"


class SupervisorProgram(Restartable):
    """A program of supervisord. No other program of it is stopped, started or read again."""

    def wanted(self):
        if not self.spec["running"]:
            return {"running": "no"}
        return {"running": "yes", "owed": "nothing"}

    def present(self):
        state = self._state()
        if not self.spec["running"]:
            return {"running": "yes" if state else "no"}  # a stopped one is to be forgotten as well
        return {"running": "yes" if state == RUNNING else "no", "owed": self.host.owed(self) or "nothing"}

    def _state(self):
        """Return supervisord's word for the program's state, "" when it does not know it."""
        words = run([CONTROL, "status", self.spec["program"]])[1].split()
        return words[1] if len(words) > 1 and words[0] == self.spec["program"] else ""

    def fix(self, keys):
        if self.spec["running"]:
            self.converge("start" if "running" in keys else "restart")
        else:
            run([CONTROL, "stop", self.spec["program"]], PATIENCE_S)
            must([CONTROL, "remove", self.spec["program"]])
            self.host.journal.paid(self.id)

    def act(self, verb):
        # It adds a new program, and restarts one whose file has changed. Then it names it.
        updated = must([CONTROL, "update", self.spec["program"]], PATIENCE_S)
        if self.spec["program"] not in updated:
            run([CONTROL, "restart", self.spec["program"]], PATIENCE_S)

    def problem(self):
        state = self._state()
        return Restartable.problem(self) if state == RUNNING else "program is %s" % (state or "not known")

    def log(self):
        return tail(run([CONTROL, "tail", self.spec["program"]], 10)[1])

    def undo(self, verb):
        self.act(verb)
