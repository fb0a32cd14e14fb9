"""The part of a site file that says how a rollout goes on from host to host. No I/O."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from inventory.part import Model
from inventory.values import HostName, text

REST = "rest"
OnFailure = Literal["stop", "wave", "all"]
WaveSize = Annotated[
    str,
    text(
        r"^([1-9][0-9]?%|100%|[1-9][0-9]{0,3}|rest)$",
        "the size of a wave: a number of hosts, a share as 10%, or rest",
    ),
]


class RolloutHooks(Model):
    """The programs that a rollout calls, each with its words. They get JSON on standard input."""

    before_wave: tuple[str, ...] = Field(
        (), description="called before a wave; another exit code than 0 pauses the rollout"
    )
    after_wave: tuple[str, ...] = Field((), description="called after a wave, also one that was taken back")
    ended: tuple[str, ...] = Field((), description="called when a rollout has ended or is paused")


class RolloutPolicy(Model):
    """How `invoke rollout` goes on from host to host. Its options win over these keys."""

    canary: tuple[HostName, ...] = Field(
        (), description="the hosts of the first wave; default: of each kind that with the fewest clients"
    )
    waves: tuple[WaveSize, ...] = Field(
        ("10%", "50%", "rest"), min_length=1, description="the sizes of the waves after that one"
    )
    budget: int = Field(0, ge=0, le=10_000, description="the hosts of the whole rollout that may fail")
    on_failure: OnFailure = Field(
        "wave",
        description="with more failures, what is taken back: nothing (stop), the hosts of that wave, "
        "or all of the rollout",
    )
    at_once: int = Field(1, ge=1, le=64, description="the relays that may restart at the same time")
    soak_s: int = Field(60, ge=0, le=86_400, description="how long a wave is watched before the next one")
    hooks: RolloutHooks = RolloutHooks()
