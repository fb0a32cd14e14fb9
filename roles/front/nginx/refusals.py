"""The reasons against nginx in front of the relay, and against its removal."""

from __future__ import annotations

from engine.facts import Facts
from inventory.model import Host
from roles.front.nginx import clashes, conflicts, neighbours


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return the reasons why our servers cannot be added."""
    if path := neighbours.foreign(facts):
        return [
            f"{path} on {host.name} is no package's, and the distribution's nginx would be installed over "
            f"it: take it away, or set hosts.{host.name}.front to none, with ports that it does not have."
        ]
    if found := absence_refusals(host, facts):
        return found
    if neighbours.dump(facts) and not neighbours.included(facts):
        return [
            f"nginx.conf on {host.name} includes neither of the folders that our site could be in: add to "
            f"its http block the line include {neighbours.FOLDERS[1]}/*.conf; or set hosts.{host.name}.front "
            "to none, with ports that nginx does not have."
        ]
    return [*_stream(host, facts), *conflicts.conflicts(host, facts)]


def absence_refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence when the configuration cannot be read, or was already invalid."""
    if problem := neighbours.unreadable(facts):
        return [
            f"nginx's configuration on {host.name} is valid, but derpfleet cannot read it, so it cannot know "
            f"which other sites nginx serves: {problem}. Write that place more simply, or set "
            f"hosts.{host.name}.front to none, with ports that nginx does not have."
        ]
    if neighbours.breakage(facts) and not clashes.is_by_us(facts) and not neighbours.is_unused(facts):
        return [
            f"nginx's configuration on {host.name} is already invalid, so nothing was changed: "
            f"{clashes.words(facts)}. Fix it until `nginx -t` passes, then deploy again."
        ]
    return []


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return a sentence when our files break the configuration, which a deploy fixes."""
    if not neighbours.breakage(facts) or not clashes.is_by_us(facts):
        return []
    return [
        f"nginx's configuration on {host.name} is broken with derpfleet's servers in it, so nginx takes no "
        f"change and would not start again: {clashes.words(facts)}. A deploy writes our servers anew."
    ]


def _stream(host: Host, facts: Facts) -> list[str]:
    wanted = {host.ports.https, host.ports.http}
    return [
        f"nginx on {host.name} hands port {listen.port} on as a stream ({server.file}): give that stream "
        f"another port, or set hosts.{host.name}.ports to others."
        for server in neighbours.others(facts)
        for listen in server.listens
        if server.stream and listen.port in wanted and "udp" not in listen.options
    ]
