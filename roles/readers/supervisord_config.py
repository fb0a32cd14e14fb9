"""Read which files of programs a supervisord includes."""

from __future__ import annotations

import configparser
import posixpath
from fnmatch import fnmatchcase

_MOST = 4096  # characters that are looked at


def includes(section: str, *, config: str, path: str) -> bool:
    """Return whether the section [include] of the file `config` names the file at `path`.

    What cannot be read counts as included.
    """
    parser = configparser.RawConfigParser(inline_comment_prefixes=";#")
    try:
        parser.read_string(section[:_MOST])
    except configparser.Error:
        return True
    folder = posixpath.dirname(config)
    patterns = parser.get("include", "files", fallback="").replace("%(here)s", folder).split()
    return any(fnmatchcase(path, posixpath.join(folder, pattern)) for pattern in patterns)
