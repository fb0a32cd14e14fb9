"""The agent: makes one host be as a plan says, and tells what it did.

It is sent over one SSH channel and never becomes a file on the host. Standard library only, Python 3.6 and up.

It reads messages from standard input and writes events to standard output, one JSON object a line:

    controller                                       agent
    {"hello": 1, "files": [...], ...}         ->
                                              <-     {"event": "hello", "facts": {...}}   or   {"event": "locked", ...}
    {"ask": 1, "files": [...]}                ->     (as often as needed)
                                              <-     {"event": "facts", "facts": {...}}
    {"plan": 1, "mode": "apply", ...}         ->
                                              <-     {"event": "want", "blobs": ["<sha256>", ...]}
    {"blob": "<sha256>", "size": n, "z": 0}   ->     followed by n bytes (zlib when z)
                                              <-     diff, result, heartbeat, waiting, confirm ... done
    {"stop": 1}                               ->     finish the resource in hand, then done
    {"bye": 1}                                ->     nothing to do: release the lock and go

For every resource: check() gives wanted and present state as flat dicts, their difference is the diff; fix(keys) mends
it; check() again proves it. What was there before goes to the journal under /var/lib/derpfleet first. When the
controller is gone, the resource in hand is finished, and the next run converges from there.
"""

import base64
import difflib
import fcntl
import glob
import grp
import hashlib
import json
import os
import platform
import pwd
import queue
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import zlib
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote, urlsplit

VERSION = 1
HEARTBEAT_S = 5
APT_LOCK_S = 600
FILE_FACT_MAX = 256 * 1024
DIFF_MAX = 64 * 1024
BACKUP_MAX = 4 * 1024 * 1024
KEEP_JOURNALS = 20
TREE_MARK = ".derpfleet-sha256"


class Failed(Exception):
    """A resource that could not be brought to its state: what, and why (the last lines of whoever said so)."""

    def __init__(self, what, why=""):
        Exception.__init__(self, what)
        self.what, self.why = what, why


class Gone(Exception):
    """The controller hung up."""


# --- the wire -----------------------------------------------------------------------------------------------------


class Wire:
    """Events out, messages in. A thread reads standard input, so that a stop or a hang-up is noticed at any time."""

    def __init__(self, stdin, stdout):
        self.stdin, self.stdout = stdin, stdout
        self.stopped = ""  # why no further resource is to be begun
        self.messages = queue.Queue()
        self.lock = threading.Lock()
        self.seq, self.started = 0, time.time()
        self.incoming = None  # where blobs are written; set once the lock is held

    def listen(self):
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for line in iter(self.stdin.readline, b""):
                message = json.loads(line.decode())
                if "stop" in message:
                    self.stopped = "stopped by the controller"
                    continue
                if "blob" in message:
                    self._read_blob(message)
                self.messages.put(message)
        except (ValueError, OSError, zlib.error) as error:
            self.stopped = "message not understood: %s" % error
        self.stopped = self.stopped or "the controller is gone"
        self.messages.put(None)

    def _read_blob(self, message):
        path, left = os.path.join(self.incoming, message["blob"]), message["size"]
        inflate = zlib.decompressobj() if message.get("z") else None
        with open(path + ".part", "wb") as out:
            os.fchmod(out.fileno(), 0o600)
            while left:
                piece = self.stdin.read(min(left, 1 << 16))
                if not piece:
                    raise OSError("cut in the middle of a blob")
                left -= len(piece)
                out.write(inflate.decompress(piece) if inflate else piece)
            if inflate:
                out.write(inflate.flush())
        if sha256_of(path + ".part") != message["blob"]:
            raise ValueError("blob %s arrived damaged" % message["blob"][:12])
        os.rename(path + ".part", path)

    def next(self):
        message = self.messages.get()
        if message is None:
            raise Gone(self.stopped)
        return message

    def send(self, event, **fields):
        with self.lock:
            self.seq += 1
            fields.update(event=event, seq=self.seq, t=round(time.time() - self.started, 3))
            try:
                self.stdout.write(json.dumps(fields, sort_keys=True).encode() + b"\n")
                self.stdout.flush()
            except (OSError, ValueError):  # nobody listens any more; what is in hand is still finished
                self.stopped = self.stopped or "the controller is gone"


# --- small tools --------------------------------------------------------------------------------------------------


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def run(argv, timeout_s=60, env=None, stdin=None):
    """(exit status, standard output, standard error); 127 when there is no such program, 124 when it took too long."""
    full_env = dict(os.environ, LC_ALL="C.UTF-8", **(env or {}))
    try:
        pipes = dict(stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
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


def must(argv, timeout_s=60, env=None, stdin=None):
    """Standard output of a command that has to succeed. Raises Failed with its last lines."""
    status, out, err = run(argv, timeout_s, env, stdin)
    if status:
        raise Failed("%s ended with status %d" % (" ".join(argv[:4]), status), tail(err or out))
    return out


def tail(text, lines=12):
    return "\n".join(text.strip().splitlines()[-lines:])


def owner_names(info):
    try:
        owner = pwd.getpwuid(info.st_uid).pw_name
    except KeyError:
        owner = str(info.st_uid)
    try:
        return owner, grp.getgrgid(info.st_gid).gr_name
    except KeyError:
        return owner, str(info.st_gid)


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


def write_atomically(path, source, mode, ids, validate=()):
    """`source`, a file, becomes `path`: temp beside it, mode, owner, fsync, validated, renamed, directory synced."""
    folder = os.path.dirname(path)
    handle, temp = tempfile.mkstemp(prefix=".%s." % os.path.basename(path), suffix=".derpfleet", dir=folder)
    try:
        with os.fdopen(handle, "wb") as out, open(source, "rb") as data:
            shutil.copyfileobj(data, out)
            os.fchown(out.fileno(), ids[0], ids[1])
            os.fchmod(out.fileno(), mode)
            out.flush()
            os.fsync(out.fileno())
        if validate:
            must([part.replace("{}", temp) for part in validate])
        os.rename(temp, path)
    except BaseException:
        os.unlink(temp)
        raise
    sync_directory(folder)


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
    """(status, body text, problem). Never raises; the body is read up to 1 MiB."""
    url = urlsplit(spec["url"])
    port = url.port or (443 if url.scheme == "https" else 80)
    host, _, other = (spec.get("connect") or "").rpartition(":")
    try:
        sock = socket.create_connection(((host or url.hostname).strip("[]"), int(other or port)), timeout=5)
        with sock:
            if url.scheme == "https":
                context = ssl.create_default_context()
                if spec.get("insecure", True):
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                sock = context.wrap_socket(sock, server_hostname=url.hostname)
            connection = HTTPConnection(url.hostname, port, timeout=5)
            connection.sock = sock
            target = (url.path or "/") + ("?" + url.query if url.query else "")
            connection.request("GET", target, headers={"Accept": spec.get("accept", "*/*")})
            answer = connection.getresponse()
            return answer.status, answer.read(1 << 20).decode(errors="replace"), ""
    except (OSError, HTTPException, ValueError) as error:
        return 0, "", "%s: %s" % (spec["url"], error)


# --- facts --------------------------------------------------------------------------------------------------------


def read_text(path):
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def os_release():
    found = {}
    for line in read_text("/etc/os-release").splitlines():
        key, _, value = line.partition("=")
        found[key] = value.strip("\"'")
    return found


def socket_owners():
    """inode -> (pid, program, unit) of every open socket."""
    owners = {}
    for folder in glob.glob("/proc/[0-9]*/fd"):
        pid = int(folder.split("/")[2])
        try:
            links = [os.readlink(os.path.join(folder, name)) for name in os.listdir(folder)]
        except OSError:
            continue
        inodes = [link[8:-1] for link in links if link.startswith("socket:[")]
        if inodes:
            program = read_text("/proc/%d/comm" % pid).strip()
            units = re.findall(r"([^/\n]+\.(?:service|socket))", read_text("/proc/%d/cgroup" % pid))
            for inode in inodes:
                owners.setdefault(inode, (pid, program, units[-1] if units else ""))
    return owners


def listeners():
    owners, found = socket_owners(), []
    for name, family, listening in (("tcp", 4, "0A"), ("tcp6", 6, "0A"), ("udp", 4, "07"), ("udp6", 6, "07")):
        for line in read_text("/proc/net/" + name).splitlines()[1:]:
            parts = line.split()
            raw, port = parts[1].split(":")
            if parts[3] != listening:
                continue
            # Each 32-bit word of the address is printed in the host's byte order.
            words = [int(raw[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(raw), 8)]
            address = socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, b"".join(words))
            pid, program, unit = owners.get(parts[9], (0, "", ""))
            found.append(dict(proto=name[:3], address=address, port=int(port, 16), pid=pid, program=program, unit=unit))
    return found


def ssh_port():
    """The host's port of the connection that we came over; sudo hides it from our own environment, not from our parents'."""
    pid = os.getpid()
    while pid > 1:
        match = re.search(r"(?:^|\0)SSH_CONNECTION=\S+ \S+ \S+ (\d+)", read_text("/proc/%d/environ" % pid))
        if match:
            return [int(match.group(1))]
        match = re.search(r"^PPid:\s+(\d+)", read_text("/proc/%d/status" % pid), re.M)
        pid = int(match.group(1)) if match else 0
    return []


def standard_facts():
    release, listening = os_release(), listeners()
    memory = re.search(r"MemTotal:\s+(\d+)", read_text("/proc/meminfo"))
    ports = ssh_port() + [entry["port"] for entry in listening if entry["program"] == "sshd" or entry["unit"] == "ssh.socket"]
    names = "apt-get dnf nft ufw firewall-cmd docker nginx certbot systemctl headscale chronyd timedatectl curl".split()
    _, addresses, _ = run(["ip", "-o", "addr"])
    return {
        "hostname": socket.gethostname(),
        "os_id": release.get("ID", ""),
        "os_version": release.get("VERSION_ID", ""),
        "os_codename": release.get("VERSION_CODENAME", ""),
        "os_like": release.get("ID_LIKE", "").split(),
        "arch": platform.machine(),
        "libc": list(platform.libc_ver()),
        "kernel": platform.release(),
        "init": read_text("/proc/1/comm").strip(),
        "python": list(sys.version_info[:3]),
        "python_executable": sys.executable,
        "memory_kib": int(memory.group(1)) if memory else 0,
        "now": time.time(),
        "addresses": re.findall(r"\sinet6?\s(\S+?)/", addresses),
        "resolvers": re.findall(r"^nameserver\s+(\S+)", read_text("/etc/resolv.conf"), re.M),
        "listening": listening,
        "ssh_ports": list(dict.fromkeys(ports)) or [22],
        "tools": {name: path for name, path in ((name, shutil.which(name)) for name in names) if path},
        "congestion_controls": read_text("/proc/sys/net/ipv4/tcp_available_congestion_control").split(),
    }


def file_facts(root, patterns):
    found = {}
    for pattern in patterns:
        for path in sorted(glob.glob(root + pattern)):
            info = os.stat(path)
            owner, group = owner_names(info)
            content, digest = None, ""
            if stat.S_ISREG(info.st_mode):
                digest = sha256_of(path)
                if info.st_size <= FILE_FACT_MAX:
                    with open(path, "rb") as file:
                        data = file.read()
                    try:
                        content = data.decode()
                    except UnicodeDecodeError:
                        content = None
            mode = "%04o" % stat.S_IMODE(info.st_mode)
            found[path[len(root) :]] = dict(content=content, sha256=digest, mode=mode, owner=owner, group=group)
    return found


def asked_facts(root, message):
    commands = {}
    for name, argv in message.get("commands", {}).items():
        status, out, err = run(argv, 20)
        commands[name] = dict(status=status, stdout=out, stderr=err)
    return {"files": file_facts(root, message.get("files", ())), "commands": commands}


def packed(facts):
    """Facts compressed: an answer that fits the first window of a connection costs no further turn."""
    return base64.b64encode(zlib.compress(json.dumps(facts).encode())).decode()


# --- the journal --------------------------------------------------------------------------------------------------


class Journal:
    """What was there before, on disk before it is touched, and which restarts are still owed.

    A restart that a change owes is written down before the change is made: a run that dies between the two leaves the
    note, and the next run pays it.
    """

    def __init__(self, root, run_id):
        self.root, self.run_id = root, run_id
        self.base = root + "/var/lib/derpfleet"
        self.owed_dir = self.base + "/owed"
        self.before = {}  # resource id -> (path, how it was)
        self.file = None

    def open(self):
        for name in ("", "/journal", "/backups", "/owed", "/incoming"):
            os.makedirs(self.base + name, mode=0o700, exist_ok=True)
        self.file = open("%s/journal/%s.jsonl" % (self.base, self.run_id), "a")
        self._prune()

    def _prune(self):
        """Only the newest journals, and the backups that they name, are kept."""
        journals = sorted(glob.glob(self.base + "/journal/*.jsonl"), key=os.path.getmtime)
        for old in journals[:-KEEP_JOURNALS]:
            os.unlink(old)
        named = set(re.findall(r'"sha256": "([0-9a-f]{64})"', "".join(read_text(path) for path in journals[-KEEP_JOURNALS:])))
        for path in glob.glob(self.base + "/backups/*"):
            if os.path.basename(path) not in named:
                os.unlink(path)

    def note(self, **fields):
        self.file.write(json.dumps(fields, sort_keys=True) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def remember(self, resource_id, path):
        """How `path` is now, with its content in the backups when it is a file of moderate size."""
        was = {"type": "absent"}
        if os.path.lexists(path):
            info = os.lstat(path)
            was = dict(type=file_type(info.st_mode), mode=stat.S_IMODE(info.st_mode), uid=info.st_uid, gid=info.st_gid)
            if was["type"] == "symlink":
                was["target"] = os.readlink(path)
            elif was["type"] == "file" and info.st_size <= BACKUP_MAX:
                was["sha256"] = sha256_of(path)
                copy = "%s/backups/%s" % (self.base, was["sha256"])
                if not os.path.exists(copy):
                    write_atomically(copy, path, 0o600, (os.getuid(), os.getgid()))
        self.note(id=resource_id, path=path, was=was)
        self.before.setdefault(resource_id, (path, was))

    def restore(self, resource_id):
        """Puts back what this run found. Returns whether it could."""
        path, was = self.before.get(resource_id, ("", {}))
        if was.get("type") == "absent":
            remove(path)
        elif was.get("type") == "symlink":
            replace_link(path, was["target"])
        elif "sha256" in was:
            write_atomically(path, "%s/backups/%s" % (self.base, was["sha256"]), was["mode"], (was["uid"], was["gid"]))
        else:
            return False
        self.note(id=resource_id, restored=path)
        return True

    def owed(self, resource_id):
        return read_text(self._owed_path(resource_id))

    def owe(self, resource_id, action):
        if self.owed(resource_id) != "restart":  # a restart outranks a reload
            with open(self._owed_path(resource_id), "w") as file:
                file.write(action)
                file.flush()
                os.fsync(file.fileno())

    def paid(self, resource_id):
        remove(self._owed_path(resource_id))

    def _owed_path(self, resource_id):
        return os.path.join(self.owed_dir, quote(resource_id, safe=""))


def replace_link(path, target):
    temp = "%s.derpfleet-%d" % (path, os.getpid())
    os.symlink(target, temp)
    os.rename(temp, path)
    sync_directory(os.path.dirname(path))


# --- the kinds ----------------------------------------------------------------------------------------------------


class Kind:
    """One resource of the plan. Subclasses say what is wanted, what is present, and how to mend the keys that differ."""

    def __init__(self, spec, host):
        self.spec, self.host = spec, host
        self.id = spec["id"]
        self.path = host.root + spec["path"] if "path" in spec else ""

    def wanted(self):
        raise NotImplementedError

    def present(self):
        raise NotImplementedError

    def fix(self, keys):
        raise NotImplementedError

    def blobs(self):
        """The contents that fix() would need now: [sha256, ...]."""
        return []

    def text_diff(self):
        """A unified diff for people, or ""."""
        return ""

    def touches(self):
        """The paths that fix() may change."""
        return [self.path] if self.path else []


class Path(Kind):
    """What file and directory share: type, mode, owner."""

    def wanted(self):
        spec = self.spec
        return {"type": spec["kind"], "mode": spec["mode"], "owner": spec["owner"], "group": spec["group"]}

    def present(self):
        try:
            info = os.lstat(self.path)
        except OSError:
            return {"type": "absent"}
        owner, group = owner_names(info)
        return {"type": file_type(info.st_mode), "mode": "%04o" % stat.S_IMODE(info.st_mode), "owner": owner, "group": group}

    def fix_mode_and_owner(self):
        uid, gid = owner_ids(self.spec["owner"], self.spec["group"])
        os.chown(self.path, uid, gid)
        os.chmod(self.path, int(self.spec["mode"], 8))


class File(Path):
    def wanted(self):
        return dict(Path.wanted(self), content=self.spec["content_sha256"])

    def present(self):
        state = Path.present(self)
        if state["type"] == "file":
            state["content"] = sha256_of(self.path)
        return state

    def blobs(self):
        return [self.spec["content_sha256"]] if self.present().get("content") != self.spec["content_sha256"] else []

    def fix(self, keys):
        if "content" not in keys and "type" not in keys:
            return self.fix_mode_and_owner()
        expected = self.spec.get("only_if_sha256")
        if expected is not None and self.present().get("content", "") != expected:
            raise Failed("%s was changed by somebody else since it was read" % self.spec["path"], "run the deploy again")
        if os.path.isdir(self.path) and not os.path.islink(self.path):
            raise Failed("%s is a directory" % self.spec["path"], "it is not removed for a file; move it away")
        ids = owner_ids(self.spec["owner"], self.spec["group"])
        source = self.host.blob(self.spec["content_sha256"])
        write_atomically(self.path, source, int(self.spec["mode"], 8), ids, self.spec["validate"])

    def text_diff(self):
        if self.spec["secret"]:
            return "(secret content)\n"
        old = self.path if os.path.isfile(self.path) else os.devnull
        new = self.host.blob(self.spec["content_sha256"])
        if max(os.path.getsize(old), os.path.getsize(new)) > DIFF_MAX:
            return "(content of %d bytes)\n" % os.path.getsize(new)
        try:
            with open(old, encoding="utf-8") as a, open(new, encoding="utf-8") as b:
                before, after = a.readlines(), b.readlines()
        except UnicodeDecodeError:
            return "(binary content)\n"
        name = self.spec["path"]
        lines = list(difflib.unified_diff(before, after, "/dev/null" if old == os.devnull else name, name))
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


class Directory(Path):
    def fix(self, keys):
        if "type" in keys:
            os.makedirs(self.path, exist_ok=True)
        self.fix_mode_and_owner()


class Symlink(Kind):
    def wanted(self):
        return {"target": self.spec["target"]}

    def present(self):
        return {"target": os.readlink(self.path)} if os.path.islink(self.path) else {}

    def fix(self, keys):
        if os.path.isdir(self.path) and not os.path.islink(self.path):
            raise Failed("%s is a directory" % self.spec["path"], "it is not removed for a link; move it away")
        replace_link(self.path, self.spec["target"])


class Absent(Kind):
    def wanted(self):
        return {"type": "absent"}

    def present(self):
        return {"type": file_type(os.lstat(self.path).st_mode)} if os.path.lexists(self.path) else {"type": "absent"}

    def fix(self, keys):
        remove(self.path)


class Tree(Kind):
    """An unpacked archive. The mark inside is written last, so a half-unpacked tree is never taken for a whole one."""

    def wanted(self):
        return {"archive": self.spec["content_sha256"]}

    def present(self):
        return {"archive": read_text(os.path.join(self.path, TREE_MARK))}

    def blobs(self):
        return [self.spec["content_sha256"]] if self.present() != self.wanted() else []

    def fix(self, keys):
        ids = owner_ids(self.spec["owner"], self.spec["group"])
        fresh = "%s.derpfleet-new" % self.path
        remove(fresh)
        os.makedirs(fresh, mode=0o755)
        with tarfile.open(self.host.blob(self.spec["content_sha256"])) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(fresh, filter="tar")
            else:
                archive.extractall(fresh)
        for folder, _, names in os.walk(fresh):
            for path in [folder] + [os.path.join(folder, name) for name in names]:
                os.lchown(path, *ids)
        with open(os.path.join(fresh, TREE_MARK), "w") as mark:
            mark.write(self.spec["content_sha256"])
        remove(self.path)
        os.rename(fresh, self.path)
        sync_directory(os.path.dirname(self.path))


class Package(Kind):
    def wanted(self):
        return {"installed": "yes" if self.spec["installed"] else "no"}

    def present(self):
        return {"installed": "yes" if self.spec["package"] in self.host.installed_packages() else "no"}

    def fix(self, keys):
        self.host.packages_changed()
        if self.spec["installed"]:
            self.host.install(self.host.batch_of_packages(self))
        else:
            self.host.uninstall(self.spec["package"])


class Group(Kind):
    def wanted(self):
        return {"exists": "yes"}

    def present(self):
        try:
            grp.getgrnam(self.spec["group"])
        except KeyError:
            return {"exists": "no"}
        return {"exists": "yes"}

    def fix(self, keys):
        must(["groupadd", "--system", self.spec["group"]])


class User(Kind):
    def wanted(self):
        wanted = {"exists": "yes", "group": self.spec["group"], "home": self.spec["home"]}
        wanted.update({"in " + group: "yes" for group in self.spec["groups"]})
        return wanted

    def present(self):
        try:
            entry = pwd.getpwnam(self.spec["user"])
        except KeyError:
            return {"exists": "no"}
        try:
            group = grp.getgrgid(entry.pw_gid).gr_name
        except KeyError:
            group = str(entry.pw_gid)
        present = {"exists": "yes", "group": group, "home": entry.pw_dir}
        for name in self.spec["groups"]:
            try:
                present["in " + name] = "yes" if entry.pw_name in grp.getgrnam(name).gr_mem else "no"
            except KeyError:
                present["in " + name] = "no such group"
        return present

    def fix(self, keys):
        spec = self.spec
        if "exists" in keys:
            shell = next((path for path in ("/usr/sbin/nologin", "/sbin/nologin") if os.path.exists(path)), "/bin/false")
            options = ["--system", "--no-create-home", "--gid", spec["group"], "--home-dir", spec["home"], "--shell", shell]
            must(["useradd"] + options + [spec["user"]])
        elif "group" in keys or "home" in keys:
            must(["usermod", "--gid", spec["group"], "--home", spec["home"], spec["user"]])
        if spec["groups"]:
            must(["usermod", "--append", "--groups", ",".join(spec["groups"]), spec["user"]])


class Command(Kind):
    ran = False

    def wanted(self):
        return {"done": "yes"}

    def present(self):
        spec = self.spec
        if spec["always"]:
            return {"done": "yes" if self.ran else "no"}
        if self.host.is_owed(self):
            return {"done": "no, something that it depends on changed"}
        if spec["creates"] and os.path.lexists(self.host.root + spec["creates"]):
            return {"done": "yes"}
        if spec["unless"] and run(spec["unless"], spec["timeout_s"], dict(spec["env"]))[0] == 0:
            return {"done": "yes"}
        if not spec["creates"] and not spec["unless"]:
            return {"done": "yes"}
        return {"done": "no"}

    def fix(self, keys):
        must(self.spec["argv"], self.spec["timeout_s"], dict(self.spec["env"]))
        self.ran = True
        self.host.journal.paid(self.id)


class Restartable(Kind):
    """What service and container share: restarted once when something that they depend on changed, then watched until healthy."""

    def await_health(self):
        deadline, problem = time.time() + self.spec["timeout_s"], ""
        while True:
            problem = self.problem()
            if not problem:
                return
            if time.time() > deadline:
                what = "%s did not become healthy within %d s" % (self.spec["id"], self.spec["timeout_s"])
                raise Failed(what, problem + "\n" + self.log())
            time.sleep(0.1)

    def problem(self):
        """What is wrong now, or ""."""
        for condition in self.spec["healthy"]:
            if condition["kind"] == "exec":
                status, out, err = run(condition["argv"], 10)
                if status:
                    return "%s: status %d: %s" % (" ".join(condition["argv"]), status, tail(err or out, 3))
                continue
            status, body, problem = http_get(condition)
            missing = [text for text in condition["contains"] if text not in body]
            if status != condition["status"]:
                return problem or "%s answered %d, not %d" % (condition["url"], status, condition["status"])
            if missing:
                return "%s does not contain %s" % (condition["url"], ", ".join(map(repr, missing)))
        for watch, before in self.host.watched.get(self.id, ()):
            status, _, problem = http_get(watch)
            if before and status != before:
                return "another site stopped answering as before: %s gave %d, now %s" % (watch["url"], before, status or problem)
        return ""

    def log(self):
        raise NotImplementedError

    def restart_back(self):
        raise NotImplementedError

    def converge(self, act):
        """act(), then health; when that fails, what this run changed is put back and started again, and Failed is raised."""
        try:
            act()
            self.await_health()
        except Failed as failure:
            names = list(self.spec["restart_on"]) + list(self.spec.get("reload_on", ()))
            restored = [name for name in names if name in self.host.changed and self.host.journal.restore(name)]
            if restored:
                failure.why += "\nput back: " + ", ".join(restored)
                self.restart_back()
                self.host.journal.paid(self.id)
            raise
        self.host.journal.paid(self.id)


class Service(Restartable):
    def wanted(self):
        yes = {True: "yes", False: "no"}
        return {"enabled": yes[self.spec["enabled"]], "running": yes[self.spec["running"]], "owed": "nothing"}

    def present(self):
        state = self.host.unit(self.spec["unit"])
        if state.get("LoadState") in (None, "not-found"):
            enabled = running = "no"
        else:
            at_boot = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated")
            enabled = "yes" if state.get("UnitFileState") in at_boot else "no"
            running = "yes" if state.get("ActiveState") in ("active", "reloading") else "no"
            if state.get("UnitFileState") == "static" and not self.spec["enabled"]:
                enabled = "no"  # static units can be neither
            if state.get("ActiveState") == "activating":
                running = "yes" if state.get("Type") == "oneshot" else "activating"
        return {"enabled": enabled, "running": running, "owed": self.host.is_owed(self) or "nothing"}

    def fix(self, keys):
        unit, owed = self.spec["unit"], self.host.is_owed(self)
        self.host.units_changed()
        self.host.reload_daemon()
        if "enabled" in keys:
            must(["systemctl", "enable" if self.spec["enabled"] else "disable", unit])
        if not self.spec["running"]:
            if "running" in keys:
                must(["systemctl", "stop", unit], self.spec["timeout_s"] + 60)
            return self.host.journal.paid(self.id)
        if owed or "running" in keys:
            verb = "start" if "running" in keys else owed
            self.converge(lambda: self.act(verb))

    def act(self, verb):
        if self.spec["before"]:
            must(self.spec["before"])
        if verb == "reload":
            return must(["systemctl", "reload", self.spec["unit"]], self.spec["timeout_s"] + 60)
        status, out, err = run(["systemctl", "restart" if verb == "restart" else "start", self.spec["unit"]], self.spec["timeout_s"] + 60)
        if status:
            raise Failed("%s did not %s" % (self.spec["unit"], verb), tail(err or out, 3) + "\n" + self.log())

    def problem(self):
        self.host.units_changed()
        state = self.host.unit(self.spec["unit"]).get("ActiveState")
        return "unit is %s" % state if state not in ("active", "reloading") else Restartable.problem(self)

    def log(self):
        return tail(run(["journalctl", "--unit", self.spec["unit"], "--lines", "12", "--no-pager", "--output", "cat"], 10)[1])

    def restart_back(self):
        self.host.dirty_units = True
        self.host.reload_daemon()
        run(["systemctl", "reset-failed", self.spec["unit"]])
        run(["systemctl", "restart", self.spec["unit"]], self.spec["timeout_s"] + 60)


class Sysctl(Kind):
    def wanted(self):
        return {"value": self.spec["value"], "at boot": self.spec["value"]}

    def present(self):
        saved = re.search(r"^\S+\s*=\s*(.*)$", read_text(self.touches()[0]), re.M)
        return {"value": " ".join(read_text(self._live()).split()), "at boot": saved.group(1) if saved else ""}

    def _live(self):
        return self.host.root + "/proc/sys/" + self.spec["key"].replace(".", "/")

    def touches(self):
        return ["%s/etc/sysctl.d/60-derpfleet-%s.conf" % (self.host.root, self.spec["key"])]

    def fix(self, keys):
        if "value" in keys:
            try:
                with open(self._live(), "w") as file:
                    file.write(self.spec["value"])
            except OSError as error:
                raise Failed("%s cannot be set to %s" % (self.spec["key"], self.spec["value"]), str(error))
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("%s = %s\n" % (self.spec["key"], self.spec["value"]))
            file.flush()
            os.makedirs(os.path.dirname(self.touches()[0]), exist_ok=True)
            write_atomically(self.touches()[0], file.name, 0o644, (os.getuid(), os.getgid()))


class Firewall(Kind):
    """One table of ours. nft prints rules in its own words, so what it printed right after loading is kept, to find drift later."""

    REVERT = (
        "import os,subprocess,sys,time\n"
        "token,old,table,wait=sys.argv[1:5]\n"
        "time.sleep(float(wait))\n"
        "if os.path.exists(token):\n"
        "    subprocess.call(['nft','delete','table','inet',table])\n"
        "    if os.path.getsize(old): subprocess.call(['nft','-f',old])\n"
        "    os.rename(token,token+'.reverted')\n"
    )

    def wanted(self):
        return {"rules": self.spec["content_sha256"], "loaded": "yes"}

    def present(self):
        rules = sha256_of(self.path) if os.path.isfile(self.path) else "absent"
        listed = hashlib.sha256(self._listed().encode()).hexdigest()
        return {"rules": rules, "loaded": "yes" if read_text(self._state()).strip() == listed else "no"}

    def _listed(self):
        return run(["nft", "--stateless", "list", "table", "inet", self.spec["table"]])[1]

    def _state(self):
        return "%s/firewall-%s" % (self.host.journal.base, self.spec["table"])

    def blobs(self):
        return [self.spec["content_sha256"]] if self.present() != self.wanted() else []

    def text_diff(self):
        return File.text_diff(self)

    def fix(self, keys):
        must(["nft", "--check", "--file", self.host.blob(self.spec["content_sha256"])])
        old = self._listed()
        folder = self.host.root + "/run/derpfleet"
        os.makedirs(folder, mode=0o700, exist_ok=True)
        token, saved = "%s/armed-%s" % (folder, self.spec["table"]), "%s/before-%s.nft" % (folder, self.spec["table"])
        remove(token + ".reverted")
        for path, text in ((saved, old), (token, "")):
            with open(path, "w") as file:
                file.write(text)
        wait_s = self.spec["revert_after_s"]
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        reverter = [sys.executable, "-I", "-c", self.REVERT, token, saved, self.spec["table"], str(wait_s)]
        subprocess.Popen(reverter, start_new_session=True, **quiet)
        must(["nft", "--file", self.host.blob(self.spec["content_sha256"])])
        self.host.wire.send("confirm", id=self.id, path=token, within_s=wait_s)
        deadline = time.time() + wait_s + 5
        while os.path.exists(token) and time.time() < deadline:
            time.sleep(0.02)
        if os.path.exists(token + ".reverted") or os.path.exists(token):
            raise Failed(
                "the new rules were taken back", "no second connection got in within %d s: they would have locked us out" % wait_s
            )
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        write_atomically(self.path, self.host.blob(self.spec["content_sha256"]), 0o644, (os.getuid(), os.getgid()))
        with open(self._state(), "w") as file:
            file.write(hashlib.sha256(self._listed().encode()).hexdigest())


class Image(Kind):
    def wanted(self):
        return {"present": "yes"}

    def present(self):
        return {"present": "no" if run(["docker", "image", "inspect", self.spec["ref"]])[0] else "yes"}

    def blobs(self):
        archive = self.spec.get("content_sha256")
        return [archive] if archive and self.present() != self.wanted() else []

    def fix(self, keys):
        if self.spec.get("content_sha256"):
            must(["docker", "load", "--input", self.host.blob(self.spec["content_sha256"])], 600)
        else:
            must(["docker", "pull", "--quiet", self.spec["ref"]], 1800)


class Container(Restartable):
    LABEL = "derpfleet.definition"

    def _definition(self):
        parts = [self.spec["image"], self.spec["arguments"], self.spec["command"]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def wanted(self):
        if not self.spec["running"]:
            return {"running": "no"}
        return {"running": "yes", "definition": self._definition(), "owed": "nothing"}

    def present(self):
        form = '{{.State.Running}} {{index .Config.Labels "%s"}}' % self.LABEL
        status, out, _ = run(["docker", "container", "inspect", "--format", form, self.spec["container"]])
        if status:
            return {"running": "no", "owed": self.host.is_owed(self) or "nothing"}
        running, _, definition = out.strip().partition(" ")
        if not self.spec["running"]:
            return {"running": "yes"}  # a stopped container is to be removed as well
        return {"running": "yes" if running == "true" else "no", "definition": definition, "owed": self.host.is_owed(self) or "nothing"}

    def fix(self, keys):
        self._remove()
        if self.spec["running"]:
            self.converge(self._start)
        else:
            self.host.journal.paid(self.id)

    def _remove(self):
        run(["docker", "stop", "--time", "10", self.spec["container"]], 30)
        run(["docker", "rm", "--force", self.spec["container"]], 30)

    def _start(self):
        label = "%s=%s" % (self.LABEL, self._definition())
        argv = ["docker", "run", "--detach", "--name", self.spec["container"], "--label", label]
        must(argv + list(self.spec["arguments"]) + [self.spec["image"]] + list(self.spec["command"]), 120)

    def problem(self):
        running = run(["docker", "container", "inspect", "--format", "{{.State.Status}}", self.spec["container"]])[1].strip()
        return "container is %s" % (running or "gone") if running != "running" else Restartable.problem(self)

    def log(self):
        _, out, err = run(["docker", "logs", "--tail", "12", self.spec["container"]], 10)
        return tail(out + err)

    def restart_back(self):
        run(["docker", "restart", self.spec["container"]], 60)


KINDS = {
    "file": File,
    "directory": Directory,
    "symlink": Symlink,
    "absent": Absent,
    "tree": Tree,
    "package": Package,
    "group": Group,
    "user": User,
    "command": Command,
    "service": Service,
    "sysctl": Sysctl,
    "firewall": Firewall,
    "image": Image,
    "container": Container,
}


# --- the host -----------------------------------------------------------------------------------------------------


class Host:
    """What the resources of one run share: the plan, caches that are read once, and what has changed so far."""

    def __init__(self, wire, root, run_id):
        self.wire, self.root = wire, root
        self.journal = Journal(root, run_id)
        self.resources = []
        self.changed = set()  # ids that this run changed
        self.watched = {}  # service id -> [(watch, status before)]
        self.would_owe = {}  # in check mode: what the changes found so far would lead to
        self.dirty_units = False
        self._units = self._packages = None
        self._batched = set()
        self._apt_updated = False
        self.now_doing = ""

    # packages

    def installed_packages(self):
        if self._packages is None:
            names = [resource.spec["package"] for resource in self.resources if isinstance(resource, Package)]
            if shutil.which("dpkg-query"):
                out = run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n"] + names)[1]
                self._packages = {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}
            else:
                out = run(["rpm", "--query", "--queryformat", "%{NAME}\\n"] + names)[1]
                self._packages = set(out.split()) & set(names)
        return self._packages

    def packages_changed(self):
        self._packages = None

    def batch_of_packages(self, first):
        """`first` and every later missing package whose needs are met: one call of the package manager instead of many."""
        met = {resource.id for resource in self.resources[: self.resources.index(first)]}
        wanted = [first]
        for resource in self.resources:
            if isinstance(resource, Package) and resource.spec["installed"] and resource not in wanted:
                if set(resource.spec["needs"]) <= met and resource.present() != resource.wanted():
                    wanted.append(resource)
        self._batched.update(resource.id for resource in wanted)
        return [resource.spec["package"] for resource in wanted]

    def was_batched(self, resource):
        return resource.id in self._batched

    def install(self, names):
        if not shutil.which("apt-get"):
            return must(["dnf", "--assumeyes", "--setopt=install_weak_deps=False", "install"] + names, 1800)
        self.await_apt()
        if not self._apt_updated and any(not run(["apt-cache", "policy", name])[1] or self._index_age_s() > 86400 for name in names):
            self.apt(["update"])
            self._apt_updated = True
        try:
            return self.apt(["install", "--no-install-recommends"] + names)
        except Failed:
            if self._apt_updated:
                raise
            self.apt(["update"])  # an index that names files which are gone
            self._apt_updated = True
            return self.apt(["install", "--no-install-recommends"] + names)

    def uninstall(self, name):
        if not shutil.which("apt-get"):
            return must(["dnf", "--assumeyes", "remove", name], 600)
        self.await_apt()
        return self.apt(["remove", name])

    def apt(self, words):
        options = ["-o", "DPkg::Lock::Timeout=60", "-o", "Dpkg::Options::=--force-confold", "-o", "Acquire::Retries=3"]
        env = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
        return must(["apt-get", "--quiet", "--quiet", "--assume-yes"] + options + words, 1800, env)

    def _index_age_s(self):
        times = [os.path.getmtime(path) for path in glob.glob(self.root + "/var/lib/apt/lists/*Packages*")]
        return time.time() - max(times) if times else 1e9

    def await_apt(self):
        """Waits for whoever holds the package manager's lock, and says for whom."""
        deadline, told = time.time() + APT_LOCK_S, ""
        while True:
            holder = self._lock_holder()
            if not holder:
                return
            if time.time() > deadline:
                raise Failed("the package manager is still locked after %d s" % APT_LOCK_S, "held by " + holder)
            if holder != told:
                self.wire.send("waiting", id=self.now_doing, reason="the package manager's lock, held by " + holder)
                told = holder
            time.sleep(0.5)

    def _lock_holder(self):
        for name in ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock"):
            try:
                handle = os.open(self.root + name, os.O_RDWR)
            except OSError:
                continue
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(handle, fcntl.LOCK_UN)
            except OSError:
                inode = os.fstat(handle).st_ino
                for line in read_text("/proc/locks").splitlines():
                    parts = line.split()
                    if len(parts) > 5 and parts[5].endswith(":%d" % inode):
                        return "%s (pid %s)%s" % (read_text("/proc/%s/comm" % parts[4]).strip(), parts[4], unit_of(parts[4]))
                return "an unknown process"
            finally:
                os.close(handle)
        return ""

    # units

    def unit(self, name):
        if self._units is None:
            names = [resource.spec["unit"] for resource in self.resources if isinstance(resource, Service)]
            properties = "Id,Names,LoadState,ActiveState,UnitFileState,Type,NeedDaemonReload"
            out = run(["systemctl", "show", "--property", properties] + names)[1]
            blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
            self._units = dict(zip(names, blocks))
        return self._units.get(name, {})

    def units_changed(self):
        self._units = None

    def reload_daemon(self):
        if self.dirty_units or any(state.get("NeedDaemonReload") == "yes" for state in (self._units or {}).values()):
            must(["systemctl", "daemon-reload"])
            self.dirty_units = False
            self.units_changed()

    # what one resource owes another

    def dependents(self, resource_id):
        for resource in self.resources:
            if resource_id in resource.spec.get("restart_on", ()):
                yield resource.id, "restart"
            elif resource_id in resource.spec.get("reload_on", ()):
                yield resource.id, "reload"
            elif resource_id in resource.spec.get("on_change", ()):
                yield resource.id, "run"

    def is_owed(self, resource):
        """"restart", "reload", "run" or "": from this run, or left over from one that did not end."""
        return self.journal.owed(resource.id) or self.would_owe.get(resource.id, "")

    def blob(self, digest):
        return os.path.join(self.wire.incoming, digest)

    def record_watched(self):
        for resource in self.resources:
            if resource.spec.get("watch"):
                self.watched[resource.id] = [(watch, http_get(watch)[0]) for watch in resource.spec["watch"]]


def unit_of(pid):
    units = re.findall(r"([^/\n]+\.service)", read_text("/proc/%s/cgroup" % pid))
    return " of " + units[-1] if units else ""


# --- one run ------------------------------------------------------------------------------------------------------


def take_lock(root, message, wire):
    """The host's lock for this run, or None after saying who holds it."""
    lock = open(root + "/run/derpfleet/lock", "a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        try:
            holder = json.loads(lock.read())
        except ValueError:
            holder = {}
        wire.send("locked", who=holder.get("who", "somebody"), since=holder.get("since", 0))
        return None
    lock.truncate(0)
    lock.write(json.dumps({"who": message.get("who", ""), "since": time.time(), "run": message["run"]}))
    lock.flush()
    return lock


def converge(host, mode):
    """Every resource in order. Returns the counts by status."""
    wire, apply = host.wire, mode == "apply"
    counts, failed = {"ok": 0, "changed": 0, "failed": 0, "skipped": 0}, ""
    watched = not apply
    for resource in host.resources:
        started = time.time()
        host.now_doing = resource.id
        report = {}
        if failed or wire.stopped:
            status = "skipped"
            report["reason"] = "not reached: %s" % ("%s failed" % failed if failed else wire.stopped)
        else:
            try:
                keys = difference(resource)
                if keys:
                    wire.send("diff", id=resource.id, keys=keys, text=resource.text_diff())
                    if apply and not watched:
                        host.record_watched()
                        watched = True
                    if apply:
                        mend(host, resource, keys)
                    else:
                        host.would_owe.update(host.dependents(resource.id))
                status = "changed" if keys or host.was_batched(resource) else "ok"
            except Failed as failure:
                status, failed = "failed", resource.id
                report.update(what=failure.what, why=failure.why)
            except OSError as error:
                status, failed = "failed", resource.id
                report.update(what="%s: %s" % (error.filename or resource.id, error.strerror), why="")
        counts[status] += 1
        wire.send("result", id=resource.id, status=status, ms=int((time.time() - started) * 1000), **report)
        if host.journal.file:
            host.journal.note(id=resource.id, status=status)
    host.now_doing = ""
    return counts


def difference(resource):
    """{key: [present, wanted]} of what differs."""
    wanted, present = resource.wanted(), resource.present()
    return {key: [present.get(key, ""), value] for key, value in wanted.items() if present.get(key, "") != value}


def mend(host, resource, keys):
    for path in resource.touches():
        host.journal.remember(resource.id, path)
    for dependent, action in host.dependents(resource.id):
        host.journal.owe(dependent, action)
    host.changed.add(resource.id)
    if any("/systemd/" in path for path in resource.touches()):
        host.dirty_units = True
    resource.fix(keys)
    left = difference(resource)
    if left:
        words = ["%s is %r, not %r" % (key, present, wanted) for key, (present, wanted) in sorted(left.items())]
        raise Failed("still not as wanted after it was mended", "\n".join(words))


def heartbeat(host):
    while True:
        time.sleep(HEARTBEAT_S)
        host.wire.send("heartbeat", id=host.now_doing)


def fetch_blobs(host):
    """Asks once for every content that is lacking, and waits for it. Returns whether the plan may go on."""
    lacking = []
    for resource in host.resources:
        for digest in resource.blobs():
            if digest not in lacking and not os.path.exists(host.blob(digest)):
                lacking.append(digest)
    host.wire.send("want", blobs=lacking)
    for _ in lacking:
        host.wire.next()


def serve(wire):
    hello = wire.next()
    root = hello.get("root", "")
    os.makedirs(root + "/run/derpfleet", mode=0o700, exist_ok=True)
    lock = take_lock(root, hello, wire) if hello.get("lock", True) else True
    if lock is None:
        return
    host = Host(wire, root, hello["run"])
    with tempfile.TemporaryDirectory(prefix="derpfleet-", dir=root + "/run/derpfleet") as scratch:
        wire.incoming = scratch
        facts = asked_facts(root, hello)
        facts.update(standard_facts())
        wire.send("hello", v=VERSION, z=packed(facts))
        for message in iter(wire.next, None):
            if "ask" in message:
                wire.send("facts", z=packed(asked_facts(root, message)))
            elif "plan" in message:
                host.resources = [KINDS[spec["kind"]](spec, host) for spec in message["resources"]]
                if message["mode"] == "apply":
                    host.journal.open()
                    wire.incoming = host.journal.base + "/incoming"
                fetch_blobs(host)
                threading.Thread(target=heartbeat, args=(host,), daemon=True).start()
                counts = converge(host, message["mode"])
                if message["mode"] == "apply" and not wire.stopped and not counts["failed"]:
                    for path in glob.glob(wire.incoming + "/*"):
                        os.unlink(path)
                wire.send("done", counts=counts, stopped=wire.stopped)
            else:
                return


def main():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)
    wire = Wire(sys.stdin.buffer, sys.stdout.buffer)
    wire.listen()
    status = 0
    try:
        serve(wire)
    except Gone:
        status = 1
    except Exception:  # whatever it is, the controller is told in full
        wire.send("crash", traceback=traceback.format_exc())
        status = 1
    # The reading thread may hang in a read for ever; a normal exit would wait for its lock.
    os._exit(status)


if __name__ == "__main__":
    main()
