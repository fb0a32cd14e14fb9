"""The relay as a Docker container, which Docker restarts. Docker itself is `roles.docker`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set

from engine.facts import Ask, Facts, Listener, asked
from engine.resource import Container, Resource
from engine.scripts import script
from inventory.choices import firewall_of
from inventory.model import Host
from roles import docker, paths, selinux
from roles.relay import memory
from roles.relay.contract import Given, Start
from roles.wiring import Wiring

ASK = asked(docker.ASK, memory.ASK)
_INSPECTED = "container"
ASK_PORTS = Ask(
    commands={
        _INSPECTED: ("docker", "container", "inspect", "--format", "{{json .HostConfig}}", paths.CONTAINER)
    }
)
KNOWN_BY: tuple[str, ...] = ()
RUNNING = f"container:{paths.CONTAINER}"
# derper reads its certificate only once, and a restart serves every program.
RELOAD: tuple[str, ...] = ("docker", "restart", paths.CONTAINER)
RESTART = RELOAD


def resources(host: Host, wiring: Wiring, facts: Facts, start: Start, given: Given) -> list[Resource]:
    """Return Docker and the container. The former relay is removed just before it starts."""
    container = Container(
        container=paths.CONTAINER,
        image=start.image,
        arguments=_arguments(host, wiring, facts, start),
        restart_on=start.reads,
        healthy=(start.healthy,),
        needs=(
            given.key,
            *(resource.id for resource in (*start.installed, *given.former)),
            *given.listens_after,
        ),
    )
    return [*docker.resources(host, facts), *start.installed, *given.former, container]


def _arguments(host: Host, wiring: Wiring, facts: Facts, start: Start) -> tuple[str, ...]:
    """Return the arguments of `docker run`."""
    words = ["--restart", "always", "--cap-drop", "ALL"]
    words += ["--cap-add", "NET_BIND_SERVICE", "--security-opt", "no-new-privileges"]
    if selinux.is_on(facts):  # it reads files of the host, which have the labels of the host
        words += ["--security-opt", "label=disable"]
    # What it reads is root's, and it keeps nothing: without a place to write it has less to lose.
    words += ["--read-only", "--tmpfs", "/tmp", "--pids-limit", "512"]  # noqa: S108 - in the container
    most = memory.share_mib(facts, 75)
    words += ["--memory", f"{most}m"] if most is not None else []
    words += ["--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"]
    for name, value in start.environment.items():
        words += ["--env", f"{name}={value}"]
    if wiring.relay_is_published:
        words += [word for published in _published(host, wiring) for word in ("--publish", published)]
    else:
        words += ["--network", "host"]
    for source, inside in start.mounts.items():
        words += ["--volume", f"{source}:{inside}:ro"]
    return tuple(words)


def _published(host: Host, wiring: Wiring) -> list[str]:
    relay, stun = wiring.relay, host.ports.stun
    found = [f"{relay}:{relay.port}".removeprefix(":")]
    if wiring.http_by == "relay":
        found.append(f"{host.ports.http}:{host.ports.http}")
    return [*found, f"{stun}:{stun}/udp"]


def log(lines: int) -> tuple[str, ...]:
    """Return `docker logs` for the container."""
    return ("docker", "logs", "--tail", str(lines), paths.CONTAINER)


def log_of_client(key: str, field: str) -> tuple[str, ...]:
    """Return `docker logs`, which cannot look for a key."""
    return log(500)


def in_its_network(program: tuple[str, ...]) -> tuple[str, ...]:
    """Return the program in the container's network: no published port leads to its loopback."""
    return (script("in_container"), paths.CONTAINER, *program)


def has(listener: Listener, facts: Facts, processes: Set[str]) -> bool:
    """Whether it is a port of the container, published or in the network of the host."""
    output = facts.commands.get(_INSPECTED)
    if listener.program not in {"docker-proxy", *processes} or output is None or output.status != 0:
        return False
    config = json.loads(output.stdout)
    if not isinstance(config, dict):
        return False
    published = _host_ports(config.get("PortBindings") or {})
    return config.get("NetworkMode") == "host" or (listener.proto, listener.port) in published


def _host_ports(bindings: object) -> Iterator[tuple[str, int]]:
    for inside, places in bindings.items() if isinstance(bindings, dict) else ():
        for place in places or ():
            yield inside.partition("/")[2], int(place["HostPort"])


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of the container. Docker itself stays."""
    return [Container(container=paths.CONTAINER, running=False, needs=needs)]


def stopped() -> list[Resource]:
    """Return the removal of the container: Docker would start a stopped one with itself."""
    return absent()


def refusals(host: Host, wiring: Wiring, facts: Facts) -> list[str]:
    """Return the reasons against Docker, and a sentence if a hidden port would be open."""
    found = docker.refusals(host, facts)
    if not wiring.relay_is_published and wiring.relay_is_hidden and not firewall_of(host).closes:
        found.append(
            f"With IPv6, {host.program} runs in the network of {host.name} itself and listens on port "
            f"{host.ports.backend} for everybody, which only the firewall closes: "
            f"set hosts.{host.name}.firewall.mode to enforce, or leave out hosts.{host.name}.ipv6."
        )
    return found
