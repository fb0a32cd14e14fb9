"""systemd: the units of a plan, their states and the verbs."""

import time

from agent.tools import must, run, tail

AT_BOOT = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated")
RUNNING = ("active", "reloading")
SHOWN = "LoadState,ActiveState,UnitFileState,Type,NeedDaemonReload,NRestarts,ExecMainStartTimestampMonotonic"
AGAIN, RECENT_S = 2, 60  # starts by systemd itself, and the time since the last one


def states_of(*units):
    """Return {unit: {property: value}}, read in one call."""
    out = run(["systemctl", "show", "--property", SHOWN] + list(units))[1]
    blocks = [block.splitlines() for block in out.split("\n\n")]
    states = [dict(line.split("=", 1) for line in block if "=" in line) for block in blocks]
    return dict(zip(units, states))


class Systemd:
    """The states of all units of a plan, and what is done to them."""

    def __init__(self, answers):
        self._answers = answers
        self._dirty = False  # a unit file was changed

    def _state(self, unit, units):
        return self._answers.of(states_of, *units).get(unit, {})

    def at_boot(self, unit, units):
        """Return "yes", "no", or "either" for a unit that can be neither enabled nor disabled.

        `units` are all those whose state is read with the unit's own.
        """
        state = self._state(unit, units)
        if state.get("LoadState") in (None, "not-found"):
            return "no"
        if state.get("UnitFileState") == "static":
            return "either"
        return "yes" if state.get("UnitFileState") in AT_BOOT else "no"

    def is_running(self, unit, units):
        """Whether the unit is active, or on its way to do its one job."""
        state = self._state(unit, units)
        if state.get("LoadState") in (None, "not-found"):
            return False
        active = state.get("ActiveState")
        return active in RUNNING or (active, state.get("Type")) == ("activating", "oneshot")

    def started(self, unit, units):
        """Return when the unit's process was started, in seconds of the monotonic clock."""
        return int(self._state(unit, units).get("ExecMainStartTimestampMonotonic") or 0) / 1e6

    def is_looping(self, unit, units):
        """Whether the unit ends again and again. It may be active at this moment."""
        state = self._state(unit, units)
        starts, at = state.get("NRestarts"), state.get("ExecMainStartTimestampMonotonic")
        recent = time.monotonic() - int(at or 0) / 1e6 < RECENT_S
        return int(starts or 0) >= AGAIN and recent

    def problem(self, unit, units):
        """Return why the unit is not active, or ""."""
        active = self._state(unit, units).get("ActiveState")
        return "" if active in RUNNING else "unit is %s" % active

    def after_touch(self, paths):
        """Remember to read the unit files again when one of `paths` is among them."""
        self._dirty = self._dirty or any("/systemd/" in path for path in paths)

    def reload_if_dirty(self, units):
        """Make systemd read its files again, if one of these units needs it. Raises Failed."""
        states = self._answers.of(states_of, *units).values()
        if self._dirty or any(state.get("NeedDaemonReload") == "yes" for state in states):
            self._reload()

    def finish(self):
        """Make systemd forget unit files that were removed after its last reload. Raises Failed."""
        if self._dirty:
            self._reload()

    def _reload(self):
        must(["systemctl", "daemon-reload"])
        self._dirty = False

    def enable(self, unit, yes):
        """Make the unit start at boot, or not. Raises Failed."""
        must(["systemctl", "enable" if yes else "disable", unit])

    def stop(self, unit, timeout_s):
        must(["systemctl", "stop", unit], timeout_s)

    def act(self, verb, unit, timeout_s):
        """Start, restart or reload the unit. Return why it did not, or None when it did."""
        argv = ["systemctl", verb, unit]
        status, out, err = run(argv, timeout_s)
        if status and self._has_hit_limit(unit):
            run(["systemctl", "reset-failed", unit])
            status, out, err = run(argv, timeout_s)
        return tail(err or out, 3) if status else None

    def _has_hit_limit(self, unit):
        """Whether the unit was started too often.

        The limit is for units that crash in a loop, but systemd counts requested restarts as well.
        """
        result = run(["systemctl", "show", "--property", "Result", "--value", unit])[1]
        return result.strip() == "start-limit-hit"

    def act_again(self, verb, unit, timeout_s):
        """Restart the unit with its previous files, or reload it if `verb` was reload."""
        self._reload()
        run(["systemctl", "reset-failed", unit])
        # After a reload the unit still runs, with clients on it. A restart would cut them off.
        run(["systemctl", "reload-or-restart" if verb == "reload" else "restart", unit], timeout_s)

    def log(self, unit):
        """Return the unit's last log lines."""
        argv = ["journalctl", "--unit", unit, "--lines", "12", "--no-pager", "--output", "cat"]
        return tail(run(argv, 10)[1])
