"""The program that answers on a host: its version and its release, in its own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from artefacts.binary import module_version
from artefacts.programs import DERPER
from engine.facts import Ask, Facts
from engine.plan import Plan
from engine.resource import Container, Tree
from inventory.choices import program_of, runner_of
from inventory.model import Host
from roles import paths, relay

VERSION = re.compile(r'^version\{.*?version="([^"]+)"', re.M)
RELEASE = re.compile(r'^relay_release\{id="([0-9a-f]{1,64})"\}', re.M)
IMAGE = re.compile(r"(\S+) (sha256:[0-9a-f]{64})")
_IMAGE_OF = "{{.Config.Image}} {{.Image}}"


@dataclass(frozen=True)
class RunningProgram:
    """The running program's words; "" for what it does not say.

    `release`: the id of our relay's release. `image`: the name by which a container's image was
    asked for, and `image_id` its own.
    """

    version: str = ""
    release: str = ""
    image: str = ""
    image_id: str = ""


def ask(host: Host) -> Ask:
    """Return the questions of `running`."""
    return Ask(
        commands={
            "metrics": metrics_command(host),
            "image": ("docker", "container", "inspect", "--format", _IMAGE_OF, paths.CONTAINER),
        }
    )


def metrics_command(host: Host) -> tuple[str, ...]:
    """Return the command that prints the relay's metrics on its host."""
    return (host.ssh.python, "-I", "-c", *relay.metrics(host))


def page(facts: Facts) -> str:
    """Return the relay's metrics, "" without an answer to `ask`."""
    return facts.said("metrics")


def running(facts: Facts) -> RunningProgram:
    """Return what the program says of itself. `facts` have to answer `ask`."""
    metrics, image = page(facts), IMAGE.fullmatch(facts.said("image").strip())
    version, release = VERSION.search(metrics), RELEASE.search(metrics)
    return RunningProgram(
        version=version[1] if version else "",
        release=release[1] if release else "",
        image=image[1] if image else "",
        image_id=image[2] if image else "",
    )


def named(host: Host, plan: Plan) -> Mapping[str, str]:
    """Return the words about the program that a plan runs, which its generation keeps."""
    found = [
        *(f"relay {one.name.rpartition('/')[2]}" for one in plan.resources if _is_release(one)),
        *(f"image {one.image}" for one in plan.resources if isinstance(one, Container) and one.running),
    ]
    is_ours, in_container = program_of(host).is_python, runner_of(host).in_container
    version = {} if is_ours or in_container else {"version": module_version(DERPER)}
    return {"release": ", ".join(found), **version}


def _is_release(resource: object) -> bool:
    return isinstance(resource, Tree) and resource.path.startswith(f"{paths.RELEASES}/")


def own_words(wanted: Mapping[str, str], found: RunningProgram) -> str:
    """Return what the program says of itself that has to be as `wanted`, "" for nothing."""
    if wanted.get("release", "").startswith("image "):
        return found.image
    return found.version if wanted.get("version") else found.release


def other_than(wanted: Mapping[str, str], found: RunningProgram) -> str:
    """Return the release that answers when it is not the wanted one, else "".

    `wanted`: the words of `named`, {} for a part of a plan, which may leave the relay out: then
    any may answer. A program that says nothing of itself is no other one: images and older releases
    do not.
    """
    kind, _, name = wanted.get("release", "").partition(" ")
    version, said = wanted.get("version", ""), own_words(wanted, found)
    if version and kind != "image":
        return "" if re.match(rf"({re.escape(version)}\b|$)", said) else said
    return "" if not name or said in ("", name) else said
