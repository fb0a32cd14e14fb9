"""Count the packets of this host's ports before its firewall: `SECONDS tcp/4/443 udp/6/3478 ...`.

Each port is protocol/version of IP/number. Prints JSON: {"tcp/4/443": [arrived, answered], ...}.
Of TCP only first packets count, and the host's answers to those. Needs root, and leaves nothing.
"""

import json
import socket
import sys
import time

ALL, OUTGOING, TO_US = 3, 4, 0  # ETH_P_ALL, PACKET_OUTGOING, PACKET_HOST
PROTOCOLS = {6: "tcp", 17: "udp"}
SYN, ACK = 0x02, 0x10


def read(data):
    """Return (protocol, version, source port, destination port, TCP's flags), or None."""
    version = data[0] >> 4 if data else 0
    at, number = ((data[0] & 15) * 4, data[9]) if version == 4 and len(data) > 20 else (40, data[6:7])
    proto = PROTOCOLS.get(number if version == 4 else ord(number or b"\0"))
    if version not in (4, 6) or not proto or len(data) < at + (14 if proto == "tcp" else 8):
        return None
    ports = [int.from_bytes(data[at + i : at + i + 2], "big") for i in (0, 2)]
    return proto, version, ports[0], ports[1], data[at + 13] if proto == "tcp" else SYN


def count(seconds, wanted):
    """Return {port: [arrived, answered]} of these seconds. Loopback does not count."""
    found = {name: [0, 0] for name in wanted}
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL)) as packets:
        packets.settimeout(0.2)
        while time.monotonic() < end:
            try:
                data, (link, _, kind, *_) = packets.recvfrom(256)
            except socket.timeout:
                continue
            header = read(data)
            if header is None or link == "lo" or kind not in (TO_US, OUTGOING):
                continue
            proto, version, source, target, flags = header
            answers = kind == OUTGOING
            name = "%s/%d/%d" % (proto, version, source if answers else target)
            is_first = flags & (SYN | ACK) == (SYN | ACK if answers and proto == "tcp" else SYN)
            if name in found and is_first:
                found[name][answers] += 1
    return found


print(json.dumps(count(float(sys.argv[1]), sys.argv[2:])))
