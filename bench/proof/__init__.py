"""The duration of a proof."""
