"""The journal: previous states and owed restarts, on disk before anything is touched."""

import glob
import hashlib
import json
import os
import re
import stat

from agent.tools import file_type, read_text, remove, replace_link, write_atomically, write_text

BACKUP_MAX = 4 * 1024 * 1024
KEEP_JOURNALS = 20


def kept_content(line, secret):
    """Return the sha256 of a content that a line of a journal names, if others may read it.

    None as well for the resources `secret`, and for a line that a power cut has torn.
    """
    if '"sha256"' not in line:  # most lines, which are not worth reading
        return None
    try:
        note = json.loads(line)
    except ValueError:
        return None
    was = note.get("was", {})
    is_open = was.get("mode", 0) & stat.S_IROTH and note["id"] not in secret
    return was.get("sha256") if is_open else None


def file_name(resource_id):
    """Return the id as a file's name, as urllib.parse.quote does. Its import would take 4 ms."""

    def quoted(sign):
        return "".join("%%%02X" % byte for byte in sign.group().encode())

    return re.sub(r"[^\w.~-]", quoted, resource_id, flags=re.A)


class Journal:
    """Previous states of paths, and the restarts that are still owed.

    A restart is written down before the change that causes it, with the state before that change. A
    run that dies between the two leaves the note. The next run pays it, or puts that state back.
    """

    def __init__(self, root, run_id):
        self.root, self.run_id = root, run_id
        self.base = root + "/var/lib/derpfleet"
        self.owed_dir = self.base + "/owed"
        self.before = {}  # resource id -> [[path, how it was], ...]
        self.file = None

    def make_folders(self):
        """Make our folders, once something is written there: a run that does nothing makes none."""
        for name in ("", "/journal", "/backups", "/owed", "/incoming"):
            os.makedirs(self.base + name, mode=0o700, exist_ok=True)

    def prune(self, secret, kept_for):
        """Remove the backups that no journal and no debt names, and that are not in `kept_for`.

        Secrets have no backups of other runs, because nothing would use them. `secret`: ids of
        resources that have a secret, whoever could read the file before.
        """
        lines = "".join(map(read_text, self._journals())).splitlines()
        named = kept_for | {kept_content(line, secret) for line in lines}
        debts = "".join(map(read_text, glob.glob(self.owed_dir + "/*")))
        named.update(re.findall(r'"sha256": "([0-9a-f]{64})"', debts))
        for path in glob.glob(self.base + "/backups/*"):
            if os.path.basename(path) not in named:
                os.unlink(path)

    def _journals(self):
        """Return the paths of all journals, oldest first."""
        return sorted(glob.glob(self.base + "/journal/*.jsonl"), key=os.path.getmtime)

    def open(self):
        """Open this run's journal before its first change, and remove the oldest ones.

        A run that changes nothing has none: it would push out those that name backups.
        """
        if self.file is not None:
            return
        self.make_folders()
        self.file = open("%s/journal/%s.jsonl" % (self.base, self.run_id), "a")
        for old in self._journals()[:-KEEP_JOURNALS]:
            os.unlink(old)

    def note(self, **fields):
        self.open()
        self.file.write(json.dumps(fields, sort_keys=True) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def remember(self, resource_id, path):
        """Note and return the state of `path`. A file's content up to BACKUP_MAX is backed up."""
        was = self.state_of(path) if os.path.lexists(path) else {"type": "absent"}
        self.note(id=resource_id, path=path, was=was)
        self.before.setdefault(resource_id, []).append([path, was])
        return was

    def state_of(self, path):
        """Return how the path is. A file's content up to BACKUP_MAX is backed up."""
        info, content = os.lstat(path), None
        if stat.S_ISREG(info.st_mode):
            # Who owns the folder may put a link or another file there meanwhile. Of one file, mode
            # and content belong together.
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                info = os.fstat(file.fileno())
                content = file.read(BACKUP_MAX + 1) if stat.S_ISREG(info.st_mode) else None
        was = dict(type=file_type(info.st_mode), mode=stat.S_IMODE(info.st_mode))
        was.update(uid=info.st_uid, gid=info.st_gid)
        if was["type"] == "symlink":
            was["target"] = os.readlink(path)
        elif content is not None and len(content) <= BACKUP_MAX:
            was["sha256"] = hashlib.sha256(content).hexdigest()
            self.back_up(was["sha256"], content)
        return was

    def backup(self, digest):
        """Return the path of the backed up content with this sha256, whether it is there or not."""
        return "%s/backups/%s" % (self.base, digest)

    def back_up(self, digest, content):
        if not os.path.exists(self.backup(digest)):
            self.make_folders()
            write_atomically(self.backup(digest), content, 0o600, (os.getuid(), os.getgid()))

    def take_in(self, digest, path):
        """Move the content at `path` to the backups, if it is not there."""
        os.rename(path, self.backup(digest))

    def put_back(self, resource_id, names):
        """Put back the states before the changes for which this resource owes its restart.

        Other runs may have made them. Return those of the ids `names` that were put back.
        """
        before, restored = self._debt(resource_id)["before"], []
        for name in names:
            done = [self._restore(name, path, was) for path, was in before.get(name, ())]
            restored += [name] * any(done)
        return restored

    def _restore(self, resource_id, path, was):
        """Put back a state that was remembered. Return whether that was possible."""
        if was.get("type") == "absent":
            remove(path)
        elif was.get("type") == "symlink":
            replace_link(path, was["target"])
        elif "sha256" in was:
            write_atomically(path, self.backup(was["sha256"]), was["mode"], (was["uid"], was["gid"]))
        else:
            return False
        self.note(id=resource_id, restored=path)
        return True

    def owed(self, resource_id):
        return self._debt(resource_id)["action"]

    def _debt(self, resource_id):
        """Return {"action": ..., "before": {id of a cause: [[path, how it was], ...]}}."""
        text = read_text(self._owed_path(resource_id))
        # Until version 0.1.0 it was the action alone.
        return json.loads(text) if text.startswith("{") else {"action": text, "before": {}}

    def owe(self, resource_id, action, cause):
        """Note that a resource has to act because the resource `cause` is about to change."""
        debt = self._debt(resource_id)
        before = dict(debt["before"])
        before.setdefault(cause, self.before.get(cause, []))
        # A restart outranks a reload.
        wanted = {"action": debt["action"] if debt["action"] == "restart" else action, "before": before}
        if wanted != debt:
            write_text(self._owed_path(resource_id), json.dumps(wanted, sort_keys=True))

    def paid(self, resource_id):
        remove(self._owed_path(resource_id))

    def _owed_path(self, resource_id):
        return os.path.join(self.owed_dir, file_name(resource_id))
