"""A rollout at a distance: two hundred hosts are prepared, and one is cut over."""
