"""JSON objects as Go reads them into a struct: names in any letter case."""

from __future__ import annotations

import json
from typing import Any


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the members by their names in lower case. Raises ValueError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object")
    return {name.lower(): value for name, value in document.items()}
