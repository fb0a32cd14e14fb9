"""The judges of who may use a relay: each a module that fits `roles.relay.contract.Judge`."""
