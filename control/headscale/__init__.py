"""headscale as the control server: its facts, its files, and how its map is changed."""
