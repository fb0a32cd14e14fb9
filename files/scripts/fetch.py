"""Prints what a path on this host's loopback answers: `http|https NAME PORT PATH`.

The name is asked for in TLS, as derper gives its certificate to nobody else.
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
