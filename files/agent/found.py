"""as_found: a thing of others, as it was before our first plan that changed it."""

import os

from agent.generations import subject_of
from agent.kernel import Sysctl
from agent.kind import Kind, difference
from agent.paths import Absent, File, Symlink
from agent.service import Service
from agent.wire import Refused

KINDS = {"file": File, "symlink": Symlink, "absent": Absent, "sysctl": Sysctl, "service": Service}


class AsFound(Kind):
    """The thing `subject`, if others had it, or it ran, before us. Else nothing is wanted of it.

    It stays as it is where nobody noted that, and where others have changed it after us. The notes
    go back far enough when `since`, a path of ours, is noted as absent. What our installation of
    `package` brought was not there before.
    """

    def __init__(self, spec, host):
        Kind.__init__(self, spec, host)
        self._sought, self._before = False, None

    def before(self):
        """Return the resource that brings it back, or None. It is sought once, before the fix."""
        if not self._sought:
            self._sought, self._before = True, self._seek()
        return self._before

    def _seek(self):
        host, subject = self.host, self.spec["subject"]
        try:
            unconfirmed = host.unconfirmed.states()
            found = dict(unconfirmed, **host.generations.found_since(0))
            specs = host.generations.specs() + [entry["spec"] for entry in unconfirmed.values()]
        except Refused:  # the notes are a newer version's, or damaged
            return None
        first, package = (found.get(self.spec[word], {"was": {}})["was"] for word in ("since", "package"))
        is_ours = first.get("type") != "absent" or package.get("installed") == "no"
        if is_ours or subject not in found:
            return None
        thing, was = _made(found[subject]["spec"], host), found[subject]["was"]
        back = thing and thing.given_back(was)
        if not back or back["kind"] == "absent" or not back.get("running", True):
            return None
        left = [spec for spec in specs if subject_of(spec) == subject]
        if back["kind"] != "service" and difference(_made(left[-1], host)):
            return None
        digest = back.get("content_sha256")
        return _made(back, host) if not digest or os.path.exists(host.journal.backup(digest)) else None

    def wanted(self):
        return self.before().wanted() if self.before() else {}

    def present(self):
        return self.before().present() if self.before() else {}

    def touches(self):
        return self.before().touches() if self.before() else []

    def text_diff(self):
        return self.before().text_diff() if self.before() else ""

    def fix(self, keys):
        self.before().fix(keys)


def _made(spec, host):
    """Return the resource of this spec; None for a kind of which nothing is given back."""
    return KINDS[spec["kind"]](spec, host) if spec["kind"] in KINDS else None
