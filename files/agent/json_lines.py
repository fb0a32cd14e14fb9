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


def text(lines):
    """Return the text of these lines."""
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)


def append(path, lines):
    """Write lines, and wait until they are on disk."""
    with open(path, "a") as file:
        # It begins a line, as a power cut may have taken the end of the last one.
        file.write("\n" + text(lines))
        file.flush()
        os.fsync(file.fileno())
