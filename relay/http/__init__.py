"""HTTP/1.1, WebSocket and PROXY headers, without I/O."""
