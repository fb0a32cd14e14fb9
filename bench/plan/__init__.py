"""The time that a plan takes to be compiled, by distribution."""
