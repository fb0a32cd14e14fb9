"""The checkout that runs, and its folders. Imports little, because every verb starts here."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
CACHE = CHECKOUT / ".cache"  # what can be made again
RUNS = CHECKOUT / ".runs"  # what has to be kept: logs, proofs, the prover's keys
