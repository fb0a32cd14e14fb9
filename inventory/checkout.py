"""Names the checkout that runs and the folders in which it keeps things. Imports next to nothing: every verb starts here."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
CACHE = CHECKOUT / ".cache"  # what can be made again
RUNS = CHECKOUT / ".runs"  # what is remembered: logs, proofs, the prover's keys
