"""Counters over all workers, metrics and the debug pages."""
