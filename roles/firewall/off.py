"""No firewall: nothing is closed, and nothing is touched. It can be beside every other firewall."""

from __future__ import annotations

from engine.facts import Ask
from roles.contract import nothing

ASK = Ask()

resources = replaced = absent = refusals = warnings = nothing
