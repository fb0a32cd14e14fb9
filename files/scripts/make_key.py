"""Make a relay's key: `PATH GROUP OLD`.

The key of a relay that was set up by hand (OLD) is reused, so that its public key stays the same.
Others may be able to write to that directory. So follow no link and accept nothing but a key: a
planted link could show the relay a file that only root may read.
"""

import grp, json, os, re, sys, tempfile
path, group, old = sys.argv[1:]
if os.path.lexists(old):
    try:
        with open(os.open(old, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            text = re.fullmatch("privkey:[0-9a-fA-F]{64}", json.load(file)["PrivateKey"]).group()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        sys.exit(old + " is not a derper key: put the right one there, or remove it to get a new key")
else:
    key = bytearray(os.urandom(32))
    key[0] &= 248
    key[31] = key[31] & 127 | 64
    text = "privkey:" + key.hex()
handle, temp = tempfile.mkstemp(dir=os.path.dirname(path))
with open(handle, "w") as file:
    json.dump({"PrivateKey": text}, file)
    os.fchown(handle, -1, grp.getgrnam(group).gr_gid)
    os.fchmod(handle, 0o640)
    file.flush()
    os.fsync(handle)
os.rename(temp, path)
