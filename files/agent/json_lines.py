"""Files of JSON lines that a power cut may tear: each line is on disk when `append` returns."""

import json
import os

from agent.tools import read_text


def read(path):
    """Return the whole lines; [] when there is no file. What a torn one is about was not begun."""
    lines = []
    for text in read_text(path).splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def append(path, line):
    """Write a line, and wait until it is on disk."""
    with open(path, "a") as file:
        # It begins a line, as a power cut may have taken the end of the last one.
        file.write("\n%s\n" % json.dumps(line, sort_keys=True))
        file.flush()
        os.fsync(file.fileno())
