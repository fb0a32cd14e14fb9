"""The base of every error that the operator sees.

An error says what went wrong, where, why, and what to do next. The command exits with `exit_code`:
0 converged and proved, 10 a check found changes, 1 a resource or a proof failed, 3 a host cannot be
reached, 4 the site file is wrong, 5 a host is locked, 6 something has to be waited for.
"""

from __future__ import annotations


class DerpfleetError(Exception):
    """An error that the operator can fix.

    Subclasses set `exit_code`. `where`, `why` and `next` may be empty. `host` is the site's name of
    the host, or "".
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", next: str = "", host: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next = next
        self.host = host
