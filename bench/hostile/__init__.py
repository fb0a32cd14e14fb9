"""Figures of what strangers can do to others' service."""
