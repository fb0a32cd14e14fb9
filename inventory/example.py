"""The first site file, for `invoke init`: inventory/example.yml with placeholders to replace."""

from __future__ import annotations

from pathlib import Path

from inventory.words import PLACEHOLDER

FILE = Path(__file__).with_name("example.yml")

# The example's values. They are reserved for documents (RFC 2606, RFC 5737).
_TO_CHANGE = ("hk1.example.org", "203.0.113.10", "https://headscale.example.org")


def init_text() -> str:
    """Return a site file with one host, which is valid but for its placeholders.

    `load` lists the placeholders, and the terms to agree to.
    """
    text = FILE.read_text(encoding="utf-8")
    for value in _TO_CHANGE:
        text = text.replace(value, PLACEHOLDER)
    return text.replace("agree_terms: true", "agree_terms: false")
