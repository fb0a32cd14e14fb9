"""Answers about the host that several resources need.

Each is asked for once, until it may have changed.
"""

from contextlib import contextmanager


class KeptAnswers:
    def __init__(self):
        self._kept = {}  # {(function, its arguments): what it returned}
        self._is_changing = False

    def of(self, ask, *words):
        """Return ask(*words), or what it returned since the last change."""
        if self._is_changing:
            return ask(*words)
        question = (ask,) + words
        if question not in self._kept:
            self._kept[question] = ask(*words)
        return self._kept[question]

    @contextmanager
    def changing(self):
        """Keep no answer from before the block, and none from within it."""
        self._kept, self._is_changing = {}, True
        try:
            yield
        finally:
            self._is_changing = False
