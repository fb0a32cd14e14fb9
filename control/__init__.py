"""Where clients get their DERP map from: the map of our regions, and the servers that hand it out. Pure; no I/O."""
