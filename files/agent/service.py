"""service, through the program that keeps the host's services alive."""

from agent.restart import Restartable
from agent.tools import Failed, must


class Service(Restartable):
    def wanted(self):
        yes = {True: "yes", False: "no"}
        return {"enabled": yes[self.spec["enabled"]], "running": yes[self.spec["running"]], "owed": "nothing"}

    def present(self):
        unit, units = self._unit_of_all()
        at_boot = self.host.units.at_boot(unit, units)
        if at_boot == "either":
            at_boot = self.wanted()["enabled"]
        running = "yes" if self.host.units.is_running(unit, units) else "no"
        return {"enabled": at_boot, "running": running, "owed": self.host.owed(self) or "nothing"}

    def _unit_of_all(self):
        """Return (the unit, all units of the plan), as their states are read in one call."""
        return self.spec["unit"], [resource.spec["unit"] for resource in self.host.alike(self)]

    def _patience_s(self):
        return self.spec["timeout_s"] + 60

    def fix(self, keys):
        unit, owed = self.spec["unit"], self.host.owed(self)
        self.host.units.reload_if_dirty()
        self.host.units.forget()
        if "enabled" in keys:
            self.host.units.enable(unit, self.spec["enabled"])
        if not self.spec["running"]:
            if "running" in keys:
                self.host.units.stop(unit, self._patience_s())
            self.host.journal.paid(self.id)
        elif owed or "running" in keys:
            self.converge("start" if "running" in keys else owed)

    def act(self, verb):
        if self.spec["before"]:
            must(self.spec["before"])
        why = self.host.units.act(verb, self.spec["unit"], self._patience_s())
        if why is not None:
            raise Failed("%s did not %s" % (self.spec["unit"], verb), why + "\n" + self.log())

    def problem(self):
        return self.host.units.problem(*self._unit_of_all()) or Restartable.problem(self)

    def log(self):
        return self.host.units.log(self.spec["unit"])

    def undo(self, verb):
        self.host.units.act_again(verb, self.spec["unit"], self._patience_s())
