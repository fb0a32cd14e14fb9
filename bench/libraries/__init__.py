"""Our own code beside libraries that do the same, measured in one run."""
