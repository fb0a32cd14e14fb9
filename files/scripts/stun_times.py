"""Print as JSON how many milliseconds a STUN answer takes, by region: `REGION,ADDRESS,PORT …`.

A region may have several nodes; its value is the least of all their answers, or null without one.
All are asked at once, three times. The request has what derper asks for: the software's name, and a
checksum (tailscale: net/stun).
"""

import json
import os
import select
import socket
import struct
import sys
import time
import zlib

COOKIE = struct.pack(">I", 0x2112A442)
WAITS_S = (0.3, 0.3, 1.0)  # after each round; an answer may come later


def request(txid):
    software = struct.pack(">HH", 0x8022, 8) + b"tailnode"
    head = struct.pack(">HH", 1, len(software) + 8) + COOKIE + txid + software
    checksum = (zlib.crc32(head) & 0xFFFFFFFF) ^ 0x5354554E
    return head + struct.pack(">HHI", 0x8028, 4, checksum)


def places(words):
    """Return (region, family, address) of each node that can be asked."""
    found = []
    for word in words:
        region, node = word.split(",", 1)
        address, port = node.rsplit(",", 1)
        try:
            first = socket.getaddrinfo(address, int(port), type=socket.SOCK_DGRAM)[0]
        except (OSError, UnicodeError):  # not found, or no name at all
            continue
        found.append((region, first[0], first[4]))
    return found


def send(nodes, sockets, sent):
    """Ask each node once. `sent`: (region, time) of each request, by its id."""
    for region, family, address in nodes:
        txid, began = os.urandom(12), time.monotonic()
        try:
            sockets[family].sendto(request(txid), address)
        except OSError:
            continue
        sent[txid] = (region, began)


def hear(sockets, sent, best, until):
    """Take answers in, until all have come or that time."""
    while sent and time.monotonic() < until:
        for ready in select.select(list(sockets.values()), [], [], max(0, until - time.monotonic()))[0]:
            try:
                data, now = ready.recv(2048), time.monotonic()
            except OSError:
                continue  # an earlier request was refused
            if data[:2] == b"\x01\x01" and data[4:8] == COOKIE and data[8:20] in sent:
                region, began = sent.pop(data[8:20])
                best[region] = min(best.get(region, 1e9), (now - began) * 1000)


nodes = places(sys.argv[1:])
sockets = {family: socket.socket(family, socket.SOCK_DGRAM) for family in {node[1] for node in nodes}}
sent, best = {}, {}
for wait_s in WAITS_S:
    send(nodes, sockets, sent)
    hear(sockets, sent, best, time.monotonic() + wait_s)
print(json.dumps({word.split(",")[0]: best.get(word.split(",")[0]) for word in sys.argv[1:]}))
