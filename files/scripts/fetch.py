"""Print the answer of a path on this host's loopback: `http|https NAME PORT PATH`.

NAME is sent in TLS, because derper gives its certificate only to clients that ask for its name.
"""

import http.client
import socket
import ssl
import sys

scheme, name, port, path = sys.argv[1:]
line = socket.create_connection(("127.0.0.1", int(port)), 3)
if scheme == "https":
    line = ssl._create_unverified_context().wrap_socket(line, server_hostname=name)
talk = http.client.HTTPConnection("127.0.0.1", int(port))
talk.sock = line
talk.request("GET", path)
print(talk.getresponse().read().decode())
