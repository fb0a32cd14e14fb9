"""Name the debs that an installation of packages would fetch: `resolve_debs.py lacking|all NAME…`.

It prints {"files": [{"url", "record"}, …]} in JSON. `record` is the package's own in the host's
package lists, with its sums. `all`: as if nothing were installed. It fetches and installs nothing,
and needs no way out, but package lists.
"""

import json
import os
import re
import subprocess
import sys
import tempfile


def output(*argv):
    env = dict(os.environ, LC_ALL="C.UTF-8")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(argv, env=env, check=False, **pipes)
    if done.returncode:
        sys.exit(done.stderr.decode(errors="replace"))
    return done.stdout.decode(errors="replace")


def uris(extent, names, folder):
    # Packages that were fetched before are named as well, as the controller does not have them.
    os.mkdir(folder + "/partial")
    options = ["-o", "Acquire::ForceHash=sha256", "-o", "Dir::Cache::archives=" + folder]
    options += ["-o", "Debug::NoLocking=1"]
    if extent == "all":
        options += ["-o", "Dir::State::status=/dev/null"]
    lines = output("apt-get", "-qq", *options, "--print-uris", "--no-install-recommends", "install", *names)
    return re.findall(r"^'([^']+)' (\S+)_\S+_\S+ \d+ SHA256:([0-9a-f]{64})$", lines, re.M)


def records(names):
    found = {}
    for record in output("apt-cache", "show", *names).split("\n\n") if names else ():
        digest = re.search(r"^SHA256: ([0-9a-f]{64})$", record, re.M)
        if digest:
            found[digest.group(1)] = record.strip() + "\n"
    return found


def main():
    with tempfile.TemporaryDirectory() as folder:
        wanted = uris(sys.argv[1], sys.argv[2:], folder)
    known = records([name for _, name, _ in wanted])
    files = [{"url": url, "record": known[digest]} for url, _, digest in wanted]
    print(json.dumps({"files": files}))


main()
