"""The first site file, for `invoke init`: inventory/example.yml with placeholders where a person's own values belong."""

from __future__ import annotations

from pathlib import Path

from inventory.words import PLACEHOLDER

FILE = Path(__file__).with_name("example.yml")

# The example's values, which are reserved for documents (RFC 2606, RFC 5737) and so nobody's.
_TO_CHANGE = ("hk1.example.org", "203.0.113.10", "https://headscale.example.org")


def init_text() -> str:
    """A site file with one host. Nothing but its placeholders keeps it from being valid: `load` lists them, and the terms to agree to."""
    text = FILE.read_text(encoding="utf-8")
    for value in _TO_CHANGE:
        text = text.replace(value, PLACEHOLDER)
    return text.replace("agree_terms: true", "agree_terms: false")
