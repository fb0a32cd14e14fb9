"""Print the answer of a path on this host, if it is whole: `http|https NAME AT PATH`.

AT is a port of loopback, or the path of a unix socket. NAME is sent in TLS, because derper gives
its certificate only to clients that ask for its name.
"""

import socket
import sys

scheme, name, at, path = sys.argv[1:]
if at.startswith("/"):
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(3)
    line.connect(at)
else:
    line = socket.create_connection(("127.0.0.1", int(at)), 3)
if scheme == "https":
    import ssl

    line = ssl._create_unverified_context().wrap_socket(line, server_hostname=name)
# Each check asks this, and http.client would double its cost. In HTTP/1.0 no answer is chunked, and
# it ends with the connection.
line.sendall(("GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n" % path).encode())
answer = b"".join(iter(lambda: line.recv(1 << 16), b""))
head, blank, body = answer.partition(b"\r\n\r\n")
length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
if not blank or len(body) < int(length or 0):
    sys.exit("the answer was cut short")
print(body.decode())
