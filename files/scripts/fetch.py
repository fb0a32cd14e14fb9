"""Print the answer of a path on this host: `http|https NAME AT PATH`.

AT is a port of loopback, or the path of a unix socket. NAME is sent in TLS, because derper gives
its certificate only to clients that ask for its name.
"""

import http.client
import socket
import ssl
import sys

scheme, name, at, path = sys.argv[1:]
if at.startswith("/"):
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(3)
    line.connect(at)
else:
    line = socket.create_connection(("127.0.0.1", int(at)), 3)
if scheme == "https":
    line = ssl._create_unverified_context().wrap_socket(line, server_hostname=name)
talk = http.client.HTTPConnection("127.0.0.1")
talk.sock = line
talk.request("GET", path)
print(talk.getresponse().read().decode())
