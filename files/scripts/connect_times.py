"""Print as JSON how many milliseconds a TCP connection takes, by name: `NAME,ADDRESS,PORT …`.

The value is null where no connection succeeds. The shortest of three tries is the distance; the
rest is waiting.
"""

import json
import socket
import sys
import time


def connect_ms(address, port):
    began = time.time()
    try:
        socket.create_connection((address, port), 2).close()
    except OSError:
        return None
    return (time.time() - began) * 1000


found = {}
for word in sys.argv[1:]:
    name, address, port = word.split(",")
    times = [connect_ms(address, int(port)) for _ in range(3)]
    found[name] = min((ms for ms in times if ms is not None), default=None)
print(json.dumps(found))
