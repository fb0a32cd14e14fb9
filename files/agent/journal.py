"""The journal: previous states and owed restarts, on disk before anything is touched."""

import glob
import hashlib
import json
import os
import stat
from urllib.parse import quote

from agent.tools import file_type, read_text, remove, replace_link, write_atomically

BACKUP_MAX = 4 * 1024 * 1024
KEEP_JOURNALS = 20


def kept_content(line, secret):
    """Return the sha256 of a content that a line of a journal names, if others may read it.

    None as well for the resources `secret`, and for a line that a power cut has torn.
    """
    try:
        note = json.loads(line)
    except ValueError:
        return None
    was = note.get("was", {})
    is_open = was.get("mode", 0) & stat.S_IROTH and note["id"] not in secret
    return was.get("sha256") if is_open else None


class Journal:
    """Previous states of paths, and the restarts that are still owed.

    A restart is written down before the change that causes it. A run that dies between the two
    leaves the note, and the next run pays it.
    """

    def __init__(self, root, run_id):
        self.root, self.run_id = root, run_id
        self.base = root + "/var/lib/derpfleet"
        self.owed_dir = self.base + "/owed"
        self.before = {}  # resource id -> (path, how it was)
        self.file = None

    def open(self, secret):
        """Open this run's journal. `secret`: as for `prune`."""
        for name in ("", "/journal", "/backups", "/owed", "/incoming"):
            os.makedirs(self.base + name, mode=0o700, exist_ok=True)
        self.file = open("%s/journal/%s.jsonl" % (self.base, self.run_id), "a")
        self.prune(secret)

    def prune(self, secret):
        """Keep only the newest journals and the backups that they name.

        Secrets have no backups of other runs, because nothing would use them. `secret`: ids of
        resources that have a secret, whoever could read the file before.
        """
        journals = sorted(glob.glob(self.base + "/journal/*.jsonl"), key=os.path.getmtime)
        for old in journals[:-KEEP_JOURNALS]:
            os.unlink(old)
        lines = "".join(read_text(path) for path in journals[-KEEP_JOURNALS:]).splitlines()
        named = {kept_content(line, secret) for line in lines}
        for path in glob.glob(self.base + "/backups/*"):
            if os.path.basename(path) not in named:
                os.unlink(path)

    def note(self, **fields):
        self.file.write(json.dumps(fields, sort_keys=True) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def remember(self, resource_id, path):
        """Note the state of `path`. The content of a file up to BACKUP_MAX goes to the backups."""
        was = self._state(path) if os.path.lexists(path) else {"type": "absent"}
        self.note(id=resource_id, path=path, was=was)
        self.before.setdefault(resource_id, (path, was))

    def _state(self, path):
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
            copy = "%s/backups/%s" % (self.base, was["sha256"])
            if not os.path.exists(copy):
                write_atomically(copy, content, 0o600, (os.getuid(), os.getgid()))
        return was

    def restore(self, resource_id):
        """Put back the state that this run found. Return whether that was possible."""
        path, was = self.before.get(resource_id, ("", {}))
        if was.get("type") == "absent":
            remove(path)
        elif was.get("type") == "symlink":
            replace_link(path, was["target"])
        elif "sha256" in was:
            copy = "%s/backups/%s" % (self.base, was["sha256"])
            write_atomically(path, copy, was["mode"], (was["uid"], was["gid"]))
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
