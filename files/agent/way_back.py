"""The way back to a generation: its plan, after the things that only later ones have.

Everything that it needs is on the host. It is converged to like any other plan.
"""

import os

from agent.converge import lacking
from agent.generations import is_kept, subject_of, subjects
from agent.kind import difference
from agent.kinds import KINDS
from agent.tools import sha256_of
from agent.wire import Refused

DEPLOY = "set the site file back to that state, and deploy"


class WayBack:
    """The way to generation `number`, and what stays all the same.

    `resources`: first the generation's folders, with the files that went with them, then the things
    that only later generations have, as they were before these, then the rest of the generation's
    own. `stays`: the ids of things that do not come back. Raises Refused.
    """

    def __init__(self, host, number):
        self.host, self.number = host, number
        self.record = host.generations.read(number)
        self._newest = {subject_of(spec): spec for spec in host.generations.specs()}
        self._unconfirmed = host.unconfirmed.states()
        unknown = {spec["kind"] for spec in self.record["resources"]} - set(KINDS)
        if unknown:
            why = "it has the kinds " + ", ".join(sorted(unknown))
            raise Refused("generation %d cannot be read" % number, "", why, DEPLOY)
        self.stays = []
        specs = [self._usable(spec) for spec in self.record["resources"] if not self._is_used_up(spec)]
        folders = [spec for spec in specs if spec["kind"] == "directory" and spec["present"]]
        others = [spec for spec in specs if spec not in folders]
        all_specs = folders + self._lost(folders, specs) + self._orphans() + others
        self.resources = [KINDS[spec["kind"]](spec, host) for spec in all_specs]

    def _is_used_up(self, spec):
        """Whether it was a secret for one run, in memory: a command took it, and it stays away.

        Generations of version 0.1.0 have such specs, as the auth key with which a tailscaled has
        joined its tailnet.
        """
        in_memory = spec.get("path", "").startswith("/run/") and not is_kept(spec)
        is_gone = in_memory and not os.path.lexists(self.host.root + spec["path"])
        if is_gone:
            self.stays.append(spec["id"])
        return is_gone

    def _lost(self, folders, specs):
        """Return the specs of files that went with a folder of the newest generation.

        It does not have them itself, as a key that was made on the host.
        """
        if self.number != self.host.generations.newest():
            return []
        places, owned = [spec["path"] for spec in folders], subjects(specs)
        found = []
        for real_path, was in self.host.unconfirmed.lost().items():
            path = real_path[len(self.host.root) :]
            if os.path.dirname(path) in places and path not in owned:
                gone = {"kind": "absent", "id": "absent:" + path, "path": path, "secret": True}
                back = KINDS["absent"](gone, self.host).given_back(was)
                found += [back] if back and self._has_contents(back) else []
        return found

    def _orphans(self):
        """Return the specs of the things that only later generations or unconfirmed changes have.

        What stops comes first, and what was made last goes first. Services that go on come last.
        """
        found = dict(self._unconfirmed, **self.host.generations.found_since(self.number))
        owned, gone, go_on = subjects(self.record["resources"]), [], []
        for subject, entry in found.items():
            if subject in owned:
                continue
            spec = KINDS[entry["spec"]["kind"]](entry["spec"], self.host).given_back(entry["was"])
            if spec is None or not self._has_contents(spec):
                if entry["spec"]["kind"] != "command":
                    self.stays.append(entry["spec"]["id"])
            elif self._is_of_others_now(entry["spec"]):
                self.stays.append(entry["spec"]["id"])
            elif spec.get("running"):
                go_on.append(spec)
            else:
                # A release of a later generation stays for the way there, if the host stays ours.
                is_release = entry["spec"]["kind"] == "tree" and spec["kind"] == "absent"
                more = {"unless_kept": spec["path"]} if is_release and self.number else {}
                gone.insert(0, dict(spec, **more))
        return gone + go_on

    def _has_contents(self, spec):
        digest = spec.get("content_sha256") if spec["kind"] == "file" else None
        return digest is None or os.path.exists(self.host.journal.backup(digest))

    def _usable(self, spec):
        """Return the spec as it can be used now.

        A secret that is not kept stays as it was confirmed last.
        """
        path = self.host.root + spec.get("path", "")
        if not is_kept(spec) and not self._has_contents(spec) and os.path.isfile(path):
            digest = self._confirmed(spec) or sha256_of(path)
            if digest != spec["content_sha256"]:
                self.stays.append(spec["id"])
            return dict(spec, content_sha256=digest)
        return spec if spec.get("only_if_sha256") is None else self._of_others(spec, path)

    def _confirmed(self, spec):
        """Return the hash of the content that unconfirmed changes have replaced, if it is there."""
        digest = self._unconfirmed.get(subject_of(spec), {"was": {}})["was"].get("sha256")
        return digest if digest and os.path.exists(self.host.journal.backup(digest)) else None

    def _of_others(self, spec, path):
        """Return the spec of a file that others write as well: it stays if they have changed it."""
        now = sha256_of(path) if os.path.isfile(path) else ""
        if now in self._left_by_us(spec) or not now:
            return dict(spec, only_if_sha256=now)
        self.stays.append(spec["id"])
        return dict(spec, content_sha256=now)

    def _is_of_others_now(self, spec):
        """Whether others write this file as well, and have changed or removed it since."""
        path = self.host.root + spec.get("path", "")
        is_shared = spec.get("only_if_sha256") is not None
        return is_shared and (not os.path.isfile(path) or sha256_of(path) not in self._left_by_us(spec))

    def _left_by_us(self, spec):
        """Return the hashes of the contents that this plan and the last ones gave the file."""
        subject = subject_of(spec)
        changed = self._unconfirmed.get(subject, {"spec": {}})["spec"]
        return [one.get("content_sha256") for one in (spec, self._newest.get(subject, {}), changed)]

    def refuse_gaps(self):
        """Raise Refused when contents are gone. It has to be the host's plan by now."""
        gone = sorted({resource.id for resource, _ in lacking(self.host, "apply")})
        if gone:
            what = "generation %d cannot be brought back: contents of it are gone" % self.number
            raise Refused(what, "", "they are no longer on the host: " + ", ".join(gone), DEPLOY)

    def drift(self, removed):
        """Return the ids of our files and links that differ from the newest generation.

        Those that a run without confirmation has changed are not among them, and none that others
        write as well. Nor are notes beside the journal, as of a withdrawal, and files that it has
        `removed`: other runs did that.
        """
        known, notes = self._unconfirmed, self.host.journal.base + "/"
        ours = [spec for subject, spec in self._newest.items() if "path" in spec and subject not in known]
        edited = [spec for spec in ours if not (self.host.root + spec["path"]).startswith(notes)]
        specs = [spec for spec in edited if spec.get("only_if_sha256") is None]
        resources = [KINDS[spec["kind"]](spec, self.host) for spec in specs]
        gone = [one for one in resources if one.spec["path"] in removed and not os.path.lexists(one.path)]
        return [one.id for one in resources if one not in gone and difference(one)]
