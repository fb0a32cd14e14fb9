"""headscale as the control server: what its host says, its files, and the one transaction that changes its map. Pure."""
