"""Small tools: programs, files, one HTTP request.

Every failure is a `Failed` with a reason, or an OSError.
"""

import glob
import grp
import hashlib
import io
import linecache
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess

HALF_TREE = ".derpfleet-new"  # the end of the name of a tree that is not whole yet


class Failed(Exception):
    """A resource could not be brought to its state: what failed, and why (last lines of output)."""

    def __init__(self, what, why=""):
        Exception.__init__(self, what)
        self.what, self.why = what, why


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def run(argv, timeout_s=60, env=None):
    """Return (exit status, standard output, standard error).

    The status is 127 when there is no such program, 124 when it took too long.
    """
    full_env = dict(os.environ, LC_ALL="C.UTF-8", **(env or {}))
    try:
        pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process = subprocess.Popen(list(argv), env=full_env, start_new_session=True, **pipes)
    except OSError as error:
        return 127, "", "%s: %s" % (argv[0], error.strerror)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return 124, out.decode(errors="replace"), "no end after %s s" % timeout_s
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def must(argv, timeout_s=60, env=None):
    """Return the output of a command that has to succeed. Raises Failed with its last lines."""
    status, out, err = run(argv, timeout_s, env)
    if status:
        words = ("(program)" if "\n" in word else word for word in argv[:4])
        raise Failed("%s ended with status %d" % (" ".join(words), status), tail(err or out))
    return out


def tail(text, lines=12):
    return "\n".join(text.strip().splitlines()[-lines:])


def owner_names(uid, gid):
    try:
        owner = pwd.getpwuid(uid).pw_name
    except KeyError:
        owner = str(uid)
    try:
        return owner, grp.getgrgid(gid).gr_name
    except KeyError:
        return owner, str(gid)


def owner_ids(owner, group):
    try:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Failed("no such user or group", str(error))


def file_type(mode):
    for test, name in ((stat.S_ISLNK, "symlink"), (stat.S_ISDIR, "directory"), (stat.S_ISREG, "file")):
        if test(mode):
            return name
    return "other"


def write_atomically(path, source, mode, ids):
    """Write `source`, a path or bytes, to `path`: temp beside it, mode, owner, fsync, rename."""
    temp = beside(path)
    handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        data = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")
        with os.fdopen(handle, "wb") as out, data:
            shutil.copyfileobj(data, out)
            os.fchown(out.fileno(), ids[0], ids[1])
            os.fchmod(out.fileno(), mode)
            out.flush()
            os.fsync(out.fileno())
        os.rename(temp, path)
    except BaseException:
        os.unlink(temp)
        raise
    sync_directory(os.path.dirname(path))


def write_text(path, text):
    """Write a file that root alone may change, atomically. Its folder has to be there."""
    write_atomically(path, text.encode(), 0o644, (os.getuid(), os.getgid()))


def beside(path):
    """Return the temporary name of a file that will become `path`, and free it.

    The name is always the same, so the next run removes a killed run's file.
    """
    temp = os.path.join(os.path.dirname(path), ".%s.derpfleet" % os.path.basename(path))
    remove(temp)
    return temp


def sync_directory(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def http_get(spec):
    """Return (status, body text, problem). Never raises. The body is read up to 1 MiB."""
    # These take a third of the agent's start, and most runs ask nothing.
    import ssl
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    host, _, other = (spec.get("connect") or "").rpartition(":")
    try:
        url = urlsplit(spec["url"])
        port = url.port or (443 if url.scheme == "https" else 80)
        sock = socket.create_connection(((host or url.hostname).strip("[]"), int(other or port)), timeout=5)
        with sock:
            if spec.get("proxy_header"):
                sock.sendall(b"PROXY UNKNOWN\r\n")  # the sender speaks for itself
            if url.scheme == "https":
                if spec.get("insecure", True):
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                else:
                    context = ssl.create_default_context()
                sock = context.wrap_socket(sock, server_hostname=url.hostname)
            connection = HTTPConnection(url.hostname, port, timeout=5)
            connection.sock = sock
            target = (url.path or "/") + ("?" + url.query if url.query else "")
            connection.request("GET", target, headers={"Accept": spec.get("accept", "*/*")})
            answer = connection.getresponse()
            return answer.status, answer.read(1 << 20).decode(errors="replace"), ""
    except (OSError, HTTPException, ValueError) as error:
        return 0, "", "%s: %s" % (spec["url"], error)


def read_bytes(path):
    """Return the content, or None when there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def read_text(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def replace_link(path, target):
    temp = beside(path)
    os.symlink(target, temp)
    os.rename(temp, path)
    sync_directory(os.path.dirname(path))


def link_all(pattern, folder):
    """Link each file of the pattern into the folder."""
    for path in glob.glob(pattern):
        replace_link(os.path.join(folder, os.path.basename(path)), path)


def source_of(module):
    """Return the source of one of the agent's modules. The boot line has put it into linecache."""
    return "".join(linecache.getlines("agent/%s.py" % module))
