"""service, and systemd as all services of a plan see it."""

from agent.restart import Restartable
from agent.tools import Failed, must, run, tail

AT_BOOT = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated")
RUNNING = ("active", "reloading")


class Service(Restartable):
    def wanted(self):
        yes = {True: "yes", False: "no"}
        return {"enabled": yes[self.spec["enabled"]], "running": yes[self.spec["running"]], "owed": "nothing"}

    def present(self):
        state = self.state()
        owed = self.host.owed(self) or "nothing"
        if state.get("LoadState") in (None, "not-found"):
            return {"enabled": "no", "running": "no", "owed": owed}
        at_boot, active = state.get("UnitFileState"), state.get("ActiveState")
        enabled = "yes" if at_boot in AT_BOOT and (at_boot != "static" or self.spec["enabled"]) else "no"  # static is neither
        running = "yes" if active in RUNNING or (active, state.get("Type")) == ("activating", "oneshot") else "no"
        return {"enabled": enabled, "running": running, "owed": owed}

    def state(self):
        names = [resource.spec["unit"] for resource in self.host.alike(self)]
        return self.host.units.state(self.spec["unit"], names)

    def fix(self, keys):
        unit, owed = self.spec["unit"], self.host.owed(self)
        self.host.units.reload_if_dirty()
        self.host.units.forget()
        if "enabled" in keys:
            must(["systemctl", "enable" if self.spec["enabled"] else "disable", unit])
        if not self.spec["running"]:
            if "running" in keys:
                must(["systemctl", "stop", unit], self.spec["timeout_s"] + 60)
            return self.host.journal.paid(self.id)
        if owed or "running" in keys:
            verb = "start" if "running" in keys else owed
            self.converge(verb)
        return None

    def act(self, verb):
        if self.spec["before"]:
            must(self.spec["before"])
        argv = ["systemctl", verb, self.spec["unit"]]
        status, out, err = run(argv, self.spec["timeout_s"] + 60)
        if status and self._is_refused_for_often():
            run(["systemctl", "reset-failed", self.spec["unit"]])
            status, out, err = run(argv, self.spec["timeout_s"] + 60)
        if status:
            raise Failed("%s did not %s" % (self.spec["unit"], verb), tail(err or out, 3) + "\n" + self.log())

    def _is_refused_for_often(self):
        """systemd's limit is for units that crash in a loop; it counts restarts that somebody asked for as well."""
        return run(["systemctl", "show", "--property", "Result", "--value", self.spec["unit"]])[1].strip() == "start-limit-hit"

    def problem(self):
        self.host.units.forget()
        active = self.state().get("ActiveState")
        return "unit is %s" % active if active not in RUNNING else Restartable.problem(self)

    def log(self):
        return tail(run(["journalctl", "--unit", self.spec["unit"], "--lines", "12", "--no-pager", "--output", "cat"], 10)[1])

    def undo(self, verb):
        self.host.units.dirty = True
        self.host.units.reload_if_dirty()
        run(["systemctl", "reset-failed", self.spec["unit"]])
        # What was only reloaded still runs, with clients on it: a restart would cut them off.
        run(["systemctl", "reload-or-restart" if verb == "reload" else "restart", self.spec["unit"]], self.spec["timeout_s"] + 60)


class Units:
    """The state of all units of a plan, read in one call and again after each change."""

    def __init__(self):
        self.dirty = False  # a unit file was changed
        self._states = None

    def state(self, name, names):
        if self._states is None:
            out = run(["systemctl", "show", "--property", "LoadState,ActiveState,UnitFileState,Type,NeedDaemonReload"] + names)[1]
            blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
            self._states = dict(zip(names, blocks))
        return self._states.get(name, {})

    def forget(self):
        self._states = None

    def reload_if_dirty(self):
        if self.dirty or any(state.get("NeedDaemonReload") == "yes" for state in (self._states or {}).values()):
            must(["systemctl", "daemon-reload"])
            self.dirty = False
            self.forget()
