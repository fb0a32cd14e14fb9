"""Take rules back unless they were confirmed in time. The agent starts it as a program of its own.

Arguments: the token's path, seconds to wait, the id of the run that armed it, argvs as JSON.
"""

import json
import os
import subprocess
import sys
import time


def main(token, wait_s, run_id, commands):
    """Run the commands, unless the token is gone or belongs to another run."""
    time.sleep(float(wait_s))
    if not os.path.exists(token):
        return
    with open(token) as file:
        if file.read() != run_id:  # a killed run had armed it
            return
    for argv in json.loads(commands):
        subprocess.call(argv)
    os.rename(token, token + ".reverted")


if __name__ == "__main__":
    main(*sys.argv[1:])
