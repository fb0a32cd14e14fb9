"""What every kind of resource is."""


class Kind:
    """One resource of the plan. Subclasses say what is wanted, what is present, and how to mend the keys that differ."""

    def __init__(self, spec, host):
        self.spec, self.host = spec, host
        self.id = spec["id"]
        self.path = host.root + spec["path"] if "path" in spec else ""

    def wanted(self):
        raise NotImplementedError

    def present(self):
        raise NotImplementedError

    def fix(self, keys):
        raise NotImplementedError

    def blobs(self):
        """The contents that fix() would need now: [sha256, ...]."""
        return []

    def shown_blobs(self):
        """Those of them that text_diff() shows, which is all that a check needs."""
        return []

    def was_changed_earlier(self):
        """Whether the fix of another resource of this run mended this one too."""
        return False

    def text_diff(self):
        """A unified diff for people, or ""."""
        return ""

    def touches(self):
        """The paths that fix() may change."""
        return [self.path] if self.path else []


def difference(resource):
    """{key: [present, wanted]} of what differs."""
    wanted, present = resource.wanted(), resource.present()
    return {key: [present.get(key, ""), value] for key, value in wanted.items() if present.get(key, "") != value}
