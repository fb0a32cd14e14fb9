"""The root of every error that a person sees.

An error says what went wrong, where, why, and what to do next; `exit_code` is what the command ends with
(0 converged and proved, 10 check found changes, 1 a resource or a proof failed, 3 unreachable, 4 site file wrong,
5 host locked).
"""

from __future__ import annotations


class DerpfleetError(Exception):
    """Something that a person can act upon.

    Subclasses set `exit_code`. `where`, `why` and `next` may be empty; `host` is the site's name of the host, or "".
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", next: str = "", host: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next = next
        self.host = host
