"""The contract of every kind of resource."""

from abc import ABC, abstractmethod


class Kind(ABC):
    """One resource of the plan.

    Subclasses define the wanted state, the present state, and the fix of the keys that differ.
    """

    def __init__(self, spec, host):
        self.spec, self.host = spec, host
        self.id = spec["id"]
        self.path = host.root + spec["path"] if "path" in spec else ""

    @abstractmethod
    def wanted(self):
        """Return {key: value} of the wanted state."""

    @abstractmethod
    def present(self):
        """Return {key: value} of the present state."""

    @abstractmethod
    def fix(self, keys):
        """Bring these keys to their wanted values. Raises Failed."""

    def blobs(self):
        """Return [sha256, ...] of the contents that fix() would need now."""
        return []

    def shown_blobs(self):
        """Return those of blobs() that text_diff() shows. A check needs no others."""
        return []

    def is_ahead(self):
        """Whether it may be fixed before the cut-over, as nothing in service uses it yet."""
        return False

    def was_changed_earlier(self):
        """Whether the fix of another resource of this run fixed this one as well."""
        return False

    def text_diff(self):
        """Return a unified diff for people, or ""."""
        return ""

    def touches(self):
        """Return the paths that fix() may change."""
        return [self.path] if self.path else []

    def loses(self):
        """Return the paths of the files that fix() removes with others, and nobody else has."""
        return []

    def state_before(self, states):
        """Return how it is now, for `given_back`. `states`: how the paths of touches() are."""
        return self.present()

    def given_back(self, was):
        """Return the spec that brings back the state `was`, or None when this kind stays."""
        return None


def difference(resource):
    """Return {key: [present, wanted]} of the keys that differ."""
    wanted, present = resource.wanted(), resource.present()
    pairs = {key: [present.get(key, ""), value] for key, value in wanted.items()}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
