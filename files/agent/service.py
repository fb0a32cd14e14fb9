"""service, through the program that keeps the host's services alive."""

import time

from agent.facts import listeners
from agent.listening import in_the_way, missing
from agent.restart import FELT_S, Restartable
from agent.tools import Failed, must

LOOP_S = 30  # a unit that ended again and again is watched for so long
LOOPING = "starts again and again"


class Service(Restartable):
    restarted = False  # because a reload could not open a socket
    looped = False  # when it was first looked at

    def wanted(self):
        yes = {True: "yes", False: "no"}
        state = {"enabled": yes[self.spec["enabled"]], "running": yes[self.spec["running"]]}
        return dict(state, owed="nothing", unheard="")

    def present(self):
        unit, units = self._unit_of_all()
        at_boot = self.host.units.at_boot(unit, units)
        if at_boot == "either":
            at_boot = self.wanted()["enabled"]
        running = "yes" if self.host.units.is_running(unit, units) else "no"
        if self.host.units.is_looping(unit, units):
            running, self.looped = LOOPING, True
        owed = self.host.owed(self)
        # A reload that is owed may open them.
        unheard = "" if owed or running != "yes" else self._unheard()
        return {"enabled": at_boot, "running": running, "owed": owed or "nothing", "unheard": unheard}

    def _unheard(self):
        """Return the places of `listens` that the unit has no socket for, in words."""
        places = self.spec["listens"]
        if not places:
            return ""
        return ", ".join(missing(places, self.spec["unit"], self.host.answers.of(listeners)))

    def _unit_of_all(self):
        """Return (the unit, it and all units of the plan), as their states are read in one call."""
        unit, others = self.spec["unit"], [resource.spec["unit"] for resource in self.host.alike(self)]
        return unit, others if unit in others else others + [unit]

    def _patience_s(self):
        return self.spec["timeout_s"] + 60

    def fix(self, keys):
        unit, units = self._unit_of_all()
        owed = self.host.owed(self)
        self.host.units.reload_if_dirty(units)
        if "enabled" in keys:
            self.host.units.enable(unit, self.spec["enabled"])
        if not self.spec["running"]:
            if "running" in keys:
                self.host.units.stop(unit, self._patience_s())
            self.host.journal.paid(self.id)
        elif owed or "running" in keys or "unheard" in keys:
            stopped = "running" in keys and not self.looped
            self.converge("start" if stopped else "restart" if self.looped else owed or "reload")

    def given_back(self, was):
        enabled, running = was["enabled"] == "yes", was["running"] != "no"
        return dict(self.spec, enabled=enabled, running=running, healthy=[], listens=[])

    def act(self, verb):
        if self.spec["before"]:
            must(self.spec["before"])
        self._do(verb)
        if not self._await_sockets():
            self._restart_for_sockets()

    def _do(self, verb):
        why = self.host.units.act(verb, self.spec["unit"], self._patience_s())
        if why is not None:
            raise Failed("%s did not %s" % (self.spec["unit"], verb), why + "\n" + self.log())

    def _await_sockets(self):
        """Wait some seconds for the unit's sockets. Return whether all are there.

        nginx tries for 2.5 s to open one, and then goes on as before the reload.
        """
        deadline = time.monotonic() + FELT_S
        while self._unheard():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _restart_for_sockets(self):
        """Restart the unit, which gives up its sockets of before. Raises Failed."""
        unit, what = self.spec["unit"], "%s does not listen on %s" % (self.spec["unit"], self._unheard())
        holders = in_the_way(self.spec["listens"], unit, listeners())
        if holders:
            raise Failed(what, "in the way: %s; stop that program, or give it another port" % holders)
        self.restarted = True
        self._do("restart")
        if not self._await_sockets():
            raise Failed(what, "a restart did not help\n" + self.log())

    def await_health(self):
        """Wait until it is healthy, and then see whether that lasts. Raises Failed."""
        Restartable.await_health(self)
        lasts_s = max(self.spec["lasts_s"], LOOP_S if self.looped else 0)
        began, since = time.monotonic(), self.host.units.started(*self._unit_of_all())
        while time.monotonic() < began + lasts_s:
            time.sleep(min(1, lasts_s))
            problem = self.problem()
            if not problem and self.host.units.started(*self._unit_of_all()) != since:
                problem = "its process ended, and another one was started"
            if problem:
                what = "%s was healthy for less than %d s" % (self.spec["id"], lasts_s)
                raise Failed(what, problem + "\n" + self.log())

    def problem(self):
        return self.host.units.problem(*self._unit_of_all()) or Restartable.problem(self)

    def log(self):
        return self.host.units.log(self.spec["unit"])

    def undo(self, verb):
        # The sockets of before are not to be had by a reload, either.
        verb = "restart" if self.restarted else verb
        self.host.units.act_again(verb, self.spec["unit"], self._patience_s())
