"""Generations: the plans that were confirmed on this host, each a file <number>.json.

{"format": 1, "number": 12, "at": seconds since 1970, "who": "ann@desk", "verb": "deploy",
 "run": ..., "plan": "sha256:...", "about": {...}, "proof": {...}, "changes": 3,
 "resources": [spec, ...],
 "found": {subject: {"spec": spec, "was": {key: value}}, ...}}

`about` and `proof` are the controller's words. `found` has the state of each thing that this
generation has and the one before did not have, as it was before. Generation 0 is the host as it was
found: it has only `found`, of all generations that are no longer kept, and "since": the time of
generation 1. Contents are in the backups, by hash.
"""

import json
import os
import stat

from agent.tools import read_bytes, remove, write_atomically
from agent.wire import Refused

FORMAT = 1
KEPT = 10
SHORT = 12  # hex digits of a hash, where it only has to be recognized


def subject_of(spec):
    """Return the thing that a resource is about: two kinds may be about one path or one unit."""
    return spec.get("path") or spec.get("unit") or spec["id"]


def is_kept(spec):
    """Whether generations keep the resource's content. A secret is nowhere but in its place."""
    return spec.get("kept", True) and not spec.get("secret", False)


def shared_of(spec):
    """Return the hashes of the contents that a tree shares with others."""
    return spec.get("shared", [])  # generations of version 0.1.0 have none


def contents_of(spec):
    """Return the hashes of a resource's contents."""
    return ([spec["content_sha256"]] if "content_sha256" in spec else []) + shared_of(spec)


def subjects(specs):
    return {subject_of(spec) for spec in specs}


class Generations:
    def __init__(self, base):
        self.folder = base + "/generations"
        self._parsed = {}  # {number: (bytes, generation)}: one contact needs each several times

    def numbers(self):
        """Return the numbers of the kept generations without 0, lowest first."""
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        found = [int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()]
        return sorted(number for number in found if number)

    def newest(self):
        """Return the number of the newest generation, 0 without one."""
        return (self.numbers() or [0])[-1]

    def read(self, number):
        """Return a generation. Raises Refused for an unknown, a damaged and a newer format."""
        data = read_bytes(self._path(number))
        if data is None and not number:
            return {"format": FORMAT, "number": 0, "resources": [], "found": {}}
        if data is None:
            kept = ", ".join(map(str, self.numbers())) or "none"
            raise Refused("there is no generation %d on this host" % number, "", "kept are: " + kept)
        known, record = self._parsed.get(number, (None, None))
        if data == known:
            return record
        try:
            record = json.loads(data.decode())
            made_by = record["format"]
        except (ValueError, KeyError, TypeError):
            what = "generation %d cannot be read" % number
            raise Refused(what, self._path(number), "the file is damaged: no JSON with a format")
        if made_by > FORMAT:
            why = "it has format %s, and this derpfleet knows formats up to %d" % (made_by, FORMAT)
            next_step = "use the derpfleet that made it, or a newer one"
            raise Refused("generation %d was made by a newer derpfleet" % number, "", why, next_step)
        self._parsed[number] = data, record
        return record

    def specs(self):
        """Return the specs of the newest generation."""
        return self.read(self.newest())["resources"]

    def outline(self):
        """Return the newest generation's number, 0 without one, and the beginnings of the hashes of
        the contents that the kept ones have. Former secrets are not among these."""
        newest = self.newest()
        specs = [
            spec
            for number in self.numbers()
            for spec in self.readable(number)["resources"]
            if number == newest or is_kept(spec)
        ]
        beginnings = {digest[:SHORT] for spec in specs for digest in contents_of(spec)}
        return {"generation": newest, "contents": sorted(beginnings)}

    def history(self):
        """Return what people want to know of each generation, newest first."""
        return [self._summary(number) for number in reversed(self.numbers())]

    def _summary(self, number):
        try:
            record = self.read(number)
        except Refused as refused:
            return {"number": number, "trouble": "%s: %s" % (refused.what, refused.why)}
        words = ("number", "at", "who", "verb", "plan", "about", "proof", "changes")
        return {word: record[word] for word in words}

    def since(self):
        """Return when generation 1 was confirmed, 0 if that is not known."""
        return self.readable(1).get("at") or self.readable(0).get("since", 0)

    def found(self):
        """Return the `found` of all generations that can be read. The oldest states count."""
        found = {}
        for number in [0] + self.numbers():
            found = earliest(found, self.readable(number)["found"])
        return found

    def found_since(self, number):
        """Return the `found` of all generations after that one, in the order of the changes.

        The oldest states count.
        """
        found = {}
        later = [other for other in self.numbers() if other > number]
        for other in later if number else [0] + later:
            found = earliest(found, self.read(other)["found"])
        return found

    def add(self, record, states):
        """Keep a generation. `states`: of all that was changed since the newest one.

        Return its number.
        """
        newest = self.newest()
        owned = subjects(self.readable(newest)["resources"])
        found = {subject: entry for subject, entry in states.items() if subject not in owned}
        number = newest + 1
        self._write(number, dict(record, format=FORMAT, number=number, found=found))
        return number

    def is_newest(self, run, plan):
        """Whether the newest generation is the plan that this run has applied."""
        newest = self.readable(self.newest())
        return bool(run) and (newest.get("run"), newest.get("plan")) == (run, plan)

    def drop_oldest(self):
        """Let go of all but `KEPT`. The states from before them move to generation 0."""
        for old in self.numbers()[:-KEPT]:
            as_found, record = self.read(0), self.readable(old)
            since = {"since": record["at"]} if old == 1 and "at" in record else {}
            self._write(0, dict(as_found, found=earliest(as_found["found"], record["found"]), **since))
            remove(self._path(old))

    def readable(self, number):
        """Return a generation, or an empty one in place of one that cannot be read."""
        try:
            return self.read(number)
        except Refused:
            return {"resources": [], "found": {}}

    def _path(self, number):
        return "%s/%d.json" % (self.folder, number)

    def _write(self, number, record):
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        text = json.dumps(record).encode()  # `found` is in the order of the changes
        write_atomically(self._path(number), text, 0o600, (os.getuid(), os.getgid()))

    def _records(self):
        return [self.read(number) for number in [0] + self.numbers()]

    def digests(self):
        """Return the hashes of the contents that the kept generations need. Raises Refused.

        What trees share is for the trees to come, so that of the newest generation will do.
        """
        records = self._records()
        shared = {digest for spec in records[-1]["resources"] for digest in shared_of(spec)}
        specs = [spec for record in records for spec in record["resources"] if is_kept(spec)]
        entries = [entry for record in records for entry in record["found"].values()]
        found = {spec["content_sha256"] for spec in specs if "content_sha256" in spec}
        return found | shared | digests_of(entries)

    def has(self, resource_id):
        """Whether a kept generation has this resource."""
        specs = [spec for number in self.numbers() for spec in self.readable(number)["resources"]]
        return any(spec["id"] == resource_id for spec in specs)

    def forget(self, resource_ids):
        """Forget how these were before us: they are gone, and no kept generation has them."""
        found = self.readable(0)["found"]
        self._set_found({key: one for key, one in found.items() if one["spec"]["id"] not in resource_ids})

    def note_images(self, states):
        """Note the images that a plan has brought which was taken back: no generation does so."""
        images = {key: one for key, one in states.items() if one["spec"]["kind"] == "image"}
        self._set_found(dict(images, **self.readable(0)["found"]))

    def _set_found(self, found):
        as_found = self.readable(0)
        if found != as_found["found"]:
            self._write(0, dict(as_found, found=found))

    def keep_tree_of(self, spec):
        """Whether a kept generation has a tree where the spec says, or below."""
        path = spec.get("unless_kept")
        if not path:
            return False
        if path is True:  # in generations of version 0.1.0
            path = spec["path"]
        specs = [spec for number in self.numbers() for spec in self.readable(number)["resources"]]
        trees = [spec["path"] for spec in specs if spec["kind"] == "tree"]
        return any((tree + "/").startswith(path + "/") for tree in trees)


def earliest(former, later):
    """Return two `found`s as one, in the order of the changes. The former states count."""
    return dict(former, **dict(later, **former))


def is_open(entry):
    """Whether a state from before may be kept: others may read it, and it is no secret."""
    return is_kept(entry["spec"]) and entry["was"].get("mode", 0) & stat.S_IROTH


def digests_of(entries, all_of_them=False):
    """Return the hashes of the contents in entries of a `found`."""
    return {
        entry["was"]["sha256"]
        for entry in entries
        if "sha256" in entry["was"] and (all_of_them or is_open(entry))
    }
