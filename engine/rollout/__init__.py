"""A rollout over several hosts, as a pure state machine."""
