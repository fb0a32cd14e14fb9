"""The part of a site file that says who is told when a relay breaks. Frozen data, no I/O."""

from __future__ import annotations

from pydantic import Field

from inventory.part import Model
from inventory.secrets import SecretRef


class Notify(Model):
    """The webhook of `invoke status --notify`."""

    url: SecretRef = Field(description="the webhook's URL, which often holds its secret")
    after: int = Field(2, ge=1, le=100, description="how many equal looks in a row make an alert")
    repeat_h: int = Field(24, ge=1, le=720, description="hours until a relay that stays broken is told again")
