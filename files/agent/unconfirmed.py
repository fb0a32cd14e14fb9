"""The changes that nobody has confirmed yet: whose they are, and the states from before them.

They are lines of unconfirmed.jsonl, on disk before anything is changed:

{"format": 1, "run": ..., "plan": "sha256:...", "who": ..., "verb": ..., "since": ...}
{"subject": "/etc/x", "spec": spec, "was": {...}, "paths": ["/etc/x"], "lost": {path: {...}}}

`lost` has the files that went with a folder.
"""


from agent import json_lines
from agent.generations import FORMAT, subject_of
from agent.tools import HALF_TREE, beside, remove
from agent.wire import Refused


class Unconfirmed:
    def __init__(self, journal):
        self.path, self.journal = journal.base + "/unconfirmed.jsonl", journal
        self._head = None  # of this run, until it is written

    def begin(self, **head):
        """Prepare for a plan that has to be confirmed. Its first change writes the head."""
        self._head = dict(head, format=FORMAT)

    def remember(self, resource, was):
        """Note the first state of a thing since the last confirmation. A no-op for other plans."""
        if self._head is None:
            return
        subject, lines = subject_of(resource.spec), self._lines()
        if self._head not in lines:
            json_lines.append(self.path, [self._head])
        if subject not in self._states(lines):
            line = {"subject": subject, "spec": resource.spec, "was": was, "paths": resource.touches()}
            line["lost"] = {path: self.journal.state_of(path) for path in resource.loses()}
            json_lines.append(self.path, [line])

    def _lines(self):
        return json_lines.read(self.path)

    @staticmethod
    def _states(lines):
        states = {}
        for line in lines:
            if "subject" in line:
                states.setdefault(line["subject"], {"spec": line["spec"], "was": line["was"]})
        return states

    def states(self):
        """Return {subject: {"spec": ..., "was": ...}}. Raises Refused for a newer format."""
        lines = self._lines()
        if any(line.get("format", FORMAT) > FORMAT for line in lines):
            why = "%s has a newer format than %d" % (self.path, FORMAT)
            next_step = "use the derpfleet that made it, or a newer one"
            raise Refused("a newer derpfleet has left changes that nobody confirmed", "", why, next_step)
        return self._states(lines)

    def lost(self):
        """Return {path: how it was} of the files that went with a folder."""
        found = {}
        for line in reversed(self._lines()):
            found.update(line.get("lost", {}))
        return found

    def remove_halves(self):
        """Remove the files that a killed run was about to put in the place of others."""
        for line in self._lines():
            for path in line.get("paths", ()):
                beside(path)  # which frees that name
                remove(path + HALF_TREE)

    def head(self):
        """Return who made the last of these changes, and when, as a dict; {} without any."""
        return ([line for line in self._lines() if "format" in line] or [{}])[-1]

    def end(self):
        """Forget them: they were confirmed or taken back."""
        remove(self.path)
        self._head = None
