"""file, directory, symlink, absent, tree."""

import hashlib
import os
import stat

from agent.archives import unpack
from agent.generations import contents_of, shared_of
from agent.kind import Kind
from agent.tools import (
    HALF_TREE,
    Failed,
    file_type,
    owner_ids,
    owner_names,
    read_text,
    remove,
    replace_link,
    sha256_of,
    sync_directory,
    write_atomically,
)

DIFF_MAX = 64 * 1024
LOST_MAX = 64  # files of a folder that is removed
TREE_MARK = ".derpfleet-sha256"


def text_diff(old, new, name, context=3):
    """Return a unified diff from the file `old`, if there is one, to the file `new`.

    Both are called `name` in it. `context`: lines around a change.
    """
    import difflib  # few runs show one

    before_name = name
    if not os.path.isfile(old):
        old = before_name = os.devnull
    if max(os.path.getsize(old), os.path.getsize(new)) > DIFF_MAX:
        return "(content of %d bytes)\n" % os.path.getsize(new)
    try:
        with open(old, encoding="utf-8") as a, open(new, encoding="utf-8") as b:
            before, after = a.readlines(), b.readlines()
    except UnicodeDecodeError:
        return "(binary content)\n"
    lines = difflib.unified_diff(before, after, before_name, name, n=context)
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def refuse_directory(resource, new):
    """Raise Failed when a directory is at the path where `new` is to be made."""
    if os.path.isdir(resource.path) and not os.path.islink(resource.path):
        what = "%s is a directory" % resource.spec["path"]
        raise Failed(what, "it is not removed for a %s; move it away" % new)


class AtPath(Kind):
    """Base of the kinds that are one path with its content."""

    def state_before(self, states):
        return states[0]

    def given_back(self, was):
        spec = {"id": self.id, "path": self.spec["path"], "needs": []}
        if was["type"] == "absent":
            if self.spec["kind"] == "directory":
                return dict(self.spec, present=False)
            return dict(spec, kind="absent")
        if was["type"] == "symlink":
            return dict(spec, kind="symlink", target=was["target"])
        owner, group = owner_names(was["uid"], was["gid"])
        spec.update(kind=was["type"], mode="%04o" % was["mode"], owner=owner, group=group)
        if "sha256" in was:
            secret, kept = self.spec.get("secret", False), self.spec.get("kept", True)
            return dict(spec, content_sha256=was["sha256"], secret=secret, kept=kept)
        # The content of a directory that was removed is not kept.
        return dict(spec, present=True) if was["type"] == self.spec["kind"] == "directory" else None


class Path(AtPath):
    """Base of file and directory: type, mode, owner."""

    def wanted(self):
        spec = self.spec
        return {"type": spec["kind"], "mode": spec["mode"], "owner": spec["owner"], "group": spec["group"]}

    def present(self):
        try:
            info = os.lstat(self.path)
        except OSError:
            return {"type": "absent"}
        owner, group = owner_names(info.st_uid, info.st_gid)
        mode = "%04o" % stat.S_IMODE(info.st_mode)
        return {"type": file_type(info.st_mode), "mode": mode, "owner": owner, "group": group}

    def fix_mode_and_owner(self):
        """Change the path itself, never the target of a link that another program put there."""
        uid, gid = owner_ids(self.spec["owner"], self.spec["group"])
        handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.fchown(handle, uid, gid)
            os.fchmod(handle, int(self.spec["mode"], 8))
        finally:
            os.close(handle)


class File(Path):
    def wanted(self):
        return dict(Path.wanted(self), content=self.spec["content_sha256"])

    def present(self):
        state = Path.present(self)
        if state["type"] == "file":
            state["content"] = sha256_of(self.path)
        return state

    def blobs(self):
        digest = self.spec["content_sha256"]
        return [digest] if self.present().get("content") != digest else []

    def shown_blobs(self):
        return [] if self.spec["secret"] else self.blobs()

    def fix(self, keys):
        if "content" not in keys and "type" not in keys:
            return self.fix_mode_and_owner()
        expected = self.spec.get("only_if_sha256")
        if expected is not None and self.present().get("content", "") != expected:
            what = "%s was changed by another program since it was read" % self.spec["path"]
            raise Failed(what, "run the deploy again")
        refuse_directory(self, "file")
        ids = owner_ids(self.spec["owner"], self.spec["group"])
        source = self.host.blob(self.spec["content_sha256"])
        write_atomically(self.path, source, int(self.spec["mode"], 8), ids)

    def text_diff(self):
        if not self.blobs():
            return ""  # only its mode or owner differ
        if self.spec["secret"]:
            return "(secret content)\n"
        # The lines of others around ours may be secret.
        context = 3 if self.spec.get("only_if_sha256") is None else 0
        return text_diff(self.path, self.host.blob(self.spec["content_sha256"]), self.spec["path"], context)


class Directory(Path):
    """A directory. An unwanted one is removed only when it is empty."""

    def wanted(self):
        return Path.wanted(self) if self.spec["present"] else {"left empty": "no"}

    def present(self):
        state = Path.present(self)
        if not self.spec["present"]:
            is_empty = state["type"] == "directory" and not os.listdir(self.path)
            state["left empty"] = "yes" if is_empty else "no"
        return state

    def fix(self, keys):
        if not self.spec["present"]:
            return os.rmdir(self.path)
        if os.path.islink(self.path):
            raise Failed("%s is a link" % self.spec["path"], "it is not followed; find out who put it there")
        if "type" in keys:
            os.makedirs(self.path, exist_ok=True)
        self.fix_mode_and_owner()


class Symlink(AtPath):
    def wanted(self):
        return {"target": self.spec["target"]}

    def present(self):
        return {"target": os.readlink(self.path)} if os.path.islink(self.path) else {}

    def fix(self, keys):
        refuse_directory(self, "link")
        replace_link(self.path, self.spec["target"])


class Absent(AtPath):
    """Nothing at a path, unless it stays for the trees of kept generations."""

    def wanted(self):
        return {"type": "absent"}

    def present(self):
        is_there = os.path.lexists(self.path) and not self.host.generations.keep_tree_of(self.spec)
        return {"type": file_type(os.lstat(self.path).st_mode) if is_there else "absent"}

    def loses(self):
        """Return the few files of a folder, such as keys. Trees stay for generations."""
        if self.spec.get("unless_kept") or os.path.islink(self.path):
            return []
        found = [os.path.join(folder, name) for folder, _, names in os.walk(self.path) for name in names]
        return found if len(found) <= LOST_MAX else []

    def fix(self, keys):
        remove(self.path)


def looks_of(tree):
    """Return the sha256 of what lstat says of a tree's files, without those that are compiled."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(tree):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        # os.path.join and os.path.relpath would take most of the time
        below = folder[len(tree) + 1 :]
        for name in folders + sorted(names):
            info = os.lstat(folder + "/" + name)
            looks = [info.st_mode, info.st_uid, info.st_gid]
            if not stat.S_ISDIR(info.st_mode):
                looks += [info.st_size, int(info.st_mtime)]
            if name != TREE_MARK:
                digest.update(repr((below + "/" + name if below else name, looks)).encode())
    return digest.hexdigest()


class Tree(AtPath):
    """An unpacked archive, and the archives that it shares with other trees.

    The mark inside is written last, so a half-unpacked tree never counts as a whole one. It has the
    archive's sha256, and that of the files' looks. These are taken once before the fix: a tree has
    thousands of files, and both the missing contents and the difference depend on them.
    """

    def __init__(self, spec, host):
        AtPath.__init__(self, spec, host)
        self._present = None

    def wanted(self):
        return {"archive": self.spec["content_sha256"], "files": "whole"}

    def present(self):
        if self._present is None:
            archive, _, looks = read_text(os.path.join(self.path, TREE_MARK)).partition(" ")
            is_whole = looks == looks_of(self.path)
            self._present = {"archive": archive, "files": "whole" if is_whole else "damaged"}
        return self._present

    def blobs(self):
        return contents_of(self.spec) if self.present() != self.wanted() else []

    def is_ahead(self):
        return not os.path.lexists(self.path)

    def fix(self, keys):
        self._present = None
        ids = owner_ids(self.spec["owner"], self.spec["group"])
        fresh = self.path + HALF_TREE
        remove(fresh)
        os.makedirs(fresh, mode=0o755)
        for digest in contents_of(self.spec):
            unpack(self.host.blob(digest), fresh, self.spec["path"])
        for folder, _, names in os.walk(fresh):
            for path in [folder] + [os.path.join(folder, name) for name in names]:
                os.lchown(path, *ids)
        with open(os.path.join(fresh, TREE_MARK), "w") as mark:
            mark.write("%s %s" % (self.spec["content_sha256"], looks_of(fresh)))
        # A power cut must not leave the mark and take the files. One fsync for each takes longer.
        os.sync()
        remove(self.path)
        os.rename(fresh, self.path)
        sync_directory(os.path.dirname(self.path))
        for digest in shared_of(self.spec):
            self.host.journal.take_in(digest, self.host.blob(digest))
