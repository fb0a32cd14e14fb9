"""Orders for which the program that has the challenge's port is stopped.

Installed on hosts beside /opt/derpfleet/bin/certificate. Standard library only.

systemd starts that program again, however an order ends: `resume` is the ExecStopPost of the unit
in which the order runs, which systemd runs after failures, kills and time-outs as well.
"""

import ssl
import time

from lineage import Problem, read, remove, run

NOTE = "/run/derpfleet-paused"  # the unit that was stopped, or nothing if it did not run
ORDER_S = 280  # a deploy waits for 300
SHORT_LIFE_S = 10 * 86400


def life(dates):
    """Return begin and end of a certificate's life, in seconds since the epoch."""
    return [ssl.cert_time_to_seconds(dates[key]) for key in ("notBefore", "notAfter")]


def is_past(dates):
    """Whether a certificate is due: after half of a short life, else two thirds.

    certbot does so, too, where no authority says otherwise.
    """
    start, end = life(dates)
    share = 1 / 2 if end - start < SHORT_LIFE_S else 2 / 3
    return time.time() > start + share * (end - start)


def is_made():
    """Whether the unit is stopped now, for an order."""
    return read(NOTE) is not None


def pause(acme):
    """Stop the unit that the orders' settings name. Raises Problem."""
    unit = acme["stops"]
    runs = not run(["systemctl", "is-active", "--quiet", unit])[0]
    with open(NOTE, "w") as file:
        file.write(unit if runs else "")
    status, output = run(["systemctl", "stop", unit]) if runs else (0, "")
    if status:
        raise Problem("%s could not be stopped for the order: %s" % (unit, output.strip()))


def resume():
    """Start the unit again, if it was stopped. Raises Problem."""
    unit = (read(NOTE) or b"").decode()
    remove(NOTE)
    status, output = run(["systemctl", "start", unit]) if unit else (0, "")
    if status:
        words = "%s was stopped for the order, and does NOT start again: %s\n"
        words += "change: journalctl -u %s says why; fix it, then systemctl start %s"
        raise Problem(words % (unit, output.strip(), unit, unit))


def order(program, force):
    """Let `program` order in a unit that pauses and resumes. Raises Problem with its words."""
    argv = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"]
    argv += ["--property=RuntimeMaxSec=%d" % ORDER_S]
    argv += ["--property=ExecStartPre=%s pause --force" % program]
    argv += ["--property=ExecStopPost=%s resume" % program]
    status, output = run(argv + program.split() + ["obtain"] + (["--force"] if force else []))
    if status:
        raise Problem(output.strip())
