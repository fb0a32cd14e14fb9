"""Every target by its name."""

from tests.fuzz import host_targets, relay_targets

TARGETS = {target.name: target for target in (*relay_targets.TARGETS, *host_targets.TARGETS)}
