"""program, which supervisord keeps alive."""

import time

from agent.restart import Restartable
from agent.tools import must, run, tail

CONTROL, PATIENCE_S = "supervisorctl", 90
RUNNING, STARTING = "RUNNING", "STARTING"
SETTLES_S = 15  # more than a program's `startsecs`, for which one that runs is STARTING


class SupervisorProgram(Restartable):
    """A program of supervisord. No other program of it is stopped, started or read again."""

    def wanted(self):
        if not self.spec["running"]:
            return {"running": "no"}
        return {"running": "yes", "owed": "nothing"}

    def present(self):
        if not self.spec["running"]:
            # A stopped one is to be forgotten as well.
            return {"running": "yes" if self._state() else "no"}
        running = "yes" if self._settled() == RUNNING else "no"
        return {"running": running, "owed": self.host.owed(self) or "nothing"}

    def _state(self):
        """Return supervisord's word for the program's state, "" when it does not know it."""
        words = run([CONTROL, "status", self.spec["program"]])[1].split()
        return words[1] if len(words) > 1 and words[0] == self.spec["program"] else ""

    def _settled(self):
        """Return the state once the program is past STARTING, as it is after a crash, too."""
        deadline = time.monotonic() + SETTLES_S
        while True:
            state = self._state()
            if state != STARTING or time.monotonic() > deadline:
                return state
            time.sleep(0.1)

    def given_back(self, was):
        return dict(self.spec, running=False) if was["running"] == "no" else None

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
