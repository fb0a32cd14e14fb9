"""python -m lab up [PART…] | down | status | shell [HOST|SITE|controller]

Works on the lab in ./.lab, or in $DERPFLEET_LAB.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import lab
from inventory.errors import DerpfleetError
from lab.topology import PARTS


def main(arguments: list[str]) -> int:
    """Run one verb; return the exit status."""
    root, began = Path(os.environ.get("DERPFLEET_LAB", ".lab")), time.monotonic()
    match arguments:
        case ["up", *parts]:
            lab.up(
                root,
                only=parts or PARTS,
                progress=lambda line: print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True),
            )
        case ["down"]:
            lab.down(root)
            print(f"no lab in {root.resolve()}")
        case ["status"]:
            print(json.dumps(lab.status(root), indent=1))
        case ["shell", *place] if len(place) <= 1:
            stage = lab.load(root)
            if stage is None:
                raise lab.LabError("there is no lab here", where=str(root), next="python -m lab up")
            argv = [*stage.enter_in(place[0] if place else "controller"), "bash"]
            os.execvp(argv[0], argv)  # noqa: S606 - a person's shell
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DerpfleetError as error:
        print(*filter(None, (error.what, error.where, error.why, error.next)), sep="\n  ", file=sys.stderr)
        sys.exit(error.exit_code)
