"""The programs that a relay may be: each a module that fits `roles.relay.contract.Program`."""
