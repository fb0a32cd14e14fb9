"""Keepers of a relay's process: each a module that fits `roles.relay.contract.Runner`."""
