"""The far side of jobsd's latency run: an HTTP server that notes when each request arrived, and nothing else.

A program of its own: target.py PORT FILE. Each request's body is {"number": N}; the file gets "N nanoseconds" lines.
"""

import re
import selectors
import socket
import sys
import time

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
REQUEST = re.compile(rb'\r\n\r\n\{"number":\s*"?(\d+)"?\}')


def serve(port, path):
    with selectors.DefaultSelector() as selector, open(path, "w", encoding="utf-8") as stamps:
        listener = socket.create_server(("127.0.0.1", port))
        selector.register(listener, selectors.EVENT_READ, None)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    peer, _ = listener.accept()
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(peer, selectors.EVENT_READ, bytearray())
                else:
                    hear(selector, key.fileobj, key.data, stamps)


def hear(selector, peer, heard, stamps):
    chunk = peer.recv(1 << 16)
    now = time.monotonic_ns()
    if not chunk:
        selector.unregister(peer)
        peer.close()
        return
    heard += chunk
    while found := REQUEST.search(heard):
        stamps.write(f"{found[1].decode()} {now}\n")
        stamps.flush()
        peer.sendall(ANSWER)
        del heard[: found.end()]


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
