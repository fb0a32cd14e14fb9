"""The names of all tests, for lists that say which test holds what."""

from __future__ import annotations

import re
from pathlib import Path

_TESTS = Path(__file__).parent.parent
NAMES = {
    name
    for path in _TESTS.rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.M)
}
