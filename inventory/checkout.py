"""The checkout that runs, and the folders for its data.

It imports almost nothing, because every verb starts here.
"""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
CACHE = CHECKOUT / ".cache"  # files that can be made again
RUNS = CHECKOUT / ".runs"  # logs, proofs, the prover's keys
