"""Archives from the controller, unpacked with care."""

from agent.tools import Failed

UNPACKED_MAX = 1024 * 1024 * 1024  # bytes; a release has some ten MB


def unpack(archive, into, name):
    """Unpack the tar file `archive` into the folder `into`. Raises Failed, which says `name`."""
    import tarfile  # few runs unpack one

    try:
        with tarfile.open(archive) as tar:
            _check(tar, name)
            if hasattr(tarfile, "data_filter"):
                tar.extractall(into, filter="tar")
            else:
                tar.extractall(into)
    except (tarfile.TarError, EOFError) as error:
        raise Failed("%s: the archive cannot be read" % name, str(error))


def _check(archive, name):
    """Raise Failed for a hostile archive. Python's own filters are younger than Debian 12."""
    size = 0
    for member in archive:
        size += member.size
        if not (member.isfile() or member.isdir()) or _leads_outside(member.name):
            problem = "an archive that would write elsewhere"
        elif size > UNPACKED_MAX:
            problem = "an archive of more than %d MiB" % (UNPACKED_MAX >> 20)
        else:
            continue
        raise Failed("%s: %s" % (name, problem), "it has %r; nothing was unpacked" % member.name)


def _leads_outside(name):
    """Whether a name in an archive is absolute or goes up."""
    return name.startswith("/") or ".." in name.split("/")
