"""Run a program in the network of a container: `CONTAINER PROGRAM-TEXT [ARGUMENT …]`.

The program itself runs on the host. derper answers some pages on loopback only, which is the
container's own loopback unless the container has the host's network.
"""

import os
import subprocess
import sys

name, *program = sys.argv[1:]
inspect = ["docker", "container", "inspect", "--format", "{{.State.Pid}}", name]
pid = subprocess.check_output(inspect).decode().strip()
os.execvp("nsenter", ["nsenter", "--target", pid, "--net", sys.executable, "-I", "-c", *program])
