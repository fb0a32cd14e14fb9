"""nftables: one table of rules, as nft reads and prints it."""

import re

from agent.tools import must, run

# What packets have put into a set, as nft prints it: no part of the rules.
ELEMENTS = re.compile(r"^\t\telements = \{.*?\}\n", re.M | re.S)


class Nft:
    """The nftables family of firewalls. Touches no table but its own."""

    def __init__(self, table):
        self.table = table

    def listed(self):
        """Return the loaded rules in nft's own words, or "" when there are none.

        Sets are without the elements that packets have put there.
        """
        return ELEMENTS.sub("", run(["nft", "--stateless", "list", "table", "inet", self.table])[1])

    def check(self, path):
        """Raise Failed when the file at `path` cannot be loaded. Changes nothing."""
        must(["nft", "--check", "--file", path])

    def load(self, path):
        """Load the rules of the file at `path`. Raises Failed."""
        must(["nft", "--file", path])

    def delete(self):
        """Remove the loaded rules. Raises Failed."""
        must(self._delete())

    def _delete(self):
        return ["nft", "delete", "table", "inet", self.table]

    def way_back(self, saved, rules):
        """Return the commands that bring back `rules`, which are in the file `saved`."""
        return [self._delete(), ["nft", "-f", saved]] if rules else [self._delete()]
