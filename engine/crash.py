"""Errors that a host's own answers cause: each is the failure of that host and of no other."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inventory.errors import DerpfleetError

WHY_MAX = 500  # characters of an error that quotes the host


class AgentCrashed(DerpfleetError):
    """The agent ended with an error, or its messages cannot be understood."""


@contextmanager
def made_of_facts(host: str) -> Iterator[None]:
    """Turn any error in work on a host's facts into AgentCrashed, which is that host's failure.

    A host may report files and outputs that no reader foresaw. The other hosts are none the worse.
    """
    try:
        yield
    except DerpfleetError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise AgentCrashed(
            "the host's facts cannot be used",
            host=host,
            where=f"{Path(last.filename).name}:{last.lineno}, in {last.name}",
            why=f"{type(error).__name__}: {error}"[:WHY_MAX],
            next="look at the host's own files and programs; if they are in order, report it as a defect",
        ) from error
