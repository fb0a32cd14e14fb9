"""Facts of this host: the standard ones, and answers to the roles' questions."""

import base64
import glob
import json
import os
import re
import shutil
import socket
import stat
import sys
import time
import zlib
from contextlib import suppress

from agent.tools import owner_names, read_text, run, sha256_of

FILE_FACT_MAX = 256 * 1024


def os_release():
    found = {}
    for line in read_text("/etc/os-release").splitlines():
        key, _, value = line.partition("=")
        found[key] = value.strip("\"'")
    return found


def libc():
    """Return [name, version], as ["glibc", "2.36"]; empty words when the C library is another."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").split(" ")
    except (ValueError, OSError):
        return ["", ""]


def socket_owners():
    """Return {inode: (pid, program, unit)} of every open socket."""
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
            found.append(dict(proto=name[:3], address=address, port=int(port, 16)))
            found[-1].update(pid=pid, program=program, unit=unit)
    return found


def ssh_port():
    """Return [the host's port of this SSH connection], or [].

    sudo hides it from our own environment, but not from that of our parents.
    """
    pid = os.getpid()
    while pid > 1:
        match = re.search(r"(?:^|\0)SSH_CONNECTION=\S+ \S+ \S+ (\d+)", read_text("/proc/%d/environ" % pid))
        if match:
            return [int(match.group(1))]
        match = re.search(r"^PPid:\s+(\d+)", read_text("/proc/%d/status" % pid), re.M)
        pid = int(match.group(1)) if match else 0
    return []


def is_sshs(entry):
    return entry["program"] == "sshd" or entry["unit"] == "ssh.socket"


def standard_facts():
    release, listening = os_release(), listeners()
    ports = ssh_port()
    ports += [entry["port"] for entry in listening if is_sshs(entry)]
    _, addresses, _ = run(["ip", "-o", "addr"])
    return {
        "hostname": socket.gethostname(),
        "os_id": release.get("ID", ""),
        "os_version": release.get("VERSION_ID", ""),
        "os_codename": release.get("VERSION_CODENAME", ""),
        "os_like": release.get("ID_LIKE", "").split(),
        "arch": os.uname().machine,
        "libc": libc(),
        "kernel": os.uname().release,
        "init": read_text("/proc/1/comm").strip(),
        "python": list(sys.version_info[:3]),
        "python_executable": sys.executable,
        "now": time.time(),
        "addresses": re.findall(r"\sinet6?\s(\S+?)/", addresses),
        "listening": listening,
        "ssh_ports": list(dict.fromkeys(ports)) or [22],
        "congestion_controls": read_text("/proc/sys/net/ipv4/tcp_available_congestion_control").split(),
    }


def file_facts(root, patterns):
    found = {}
    for pattern in patterns:
        for path in sorted(filter(os.path.exists, glob.glob(root + pattern))):  # no dangling links
            with suppress(FileNotFoundError):  # gone since it was listed
                found[path[len(root) :]] = file_fact(path)
                if os.path.islink(path):
                    found[path[len(root) :]]["link"] = os.path.realpath(path)[len(root) :]
    return found


def file_fact(path):
    """Return the fields of engine.facts.FileFact. Raises OSError."""
    info = os.stat(path)
    owner, group = owner_names(info.st_uid, info.st_gid)
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
    return dict(content=content, sha256=digest, mode=mode, owner=owner, group=group)


def asked_facts(root, message):
    """Return the answers to the roles' questions. Of commands, python3 is this very Python."""
    commands = {}
    for name, argv in message.get("commands", {}).items():
        program = sys.executable if argv[0] == "python3" else argv[0]
        status, out, err = run([program] + argv[1:], 20)
        commands[name] = dict(status=status, stdout=out, stderr=err)
    found = {name: shutil.which(name) for name in message.get("tools", ())}
    tools = {name: path for name, path in found.items() if path}
    return {"files": file_facts(root, message.get("files", ())), "tools": tools, "commands": commands}


def packed(facts):
    """Return the facts compressed.

    An answer that fits the first window of a connection costs no further turn. A name of a file
    that is not UTF-8 gets a ? for each byte that is not.
    """
    text = json.dumps(facts, ensure_ascii=False).encode(errors="replace")
    return base64.b64encode(zlib.compress(text)).decode()
