"""Every target by its name."""

from tests.fuzz import host_targets, policy_targets, relay_targets

_OF = (relay_targets, host_targets, policy_targets)
TARGETS = {target.name: target for module in _OF for target in module.TARGETS}
