"""Files with keys and certificates."""
