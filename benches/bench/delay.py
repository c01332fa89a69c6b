"""A proxy that makes Redis far away: every byte arrives a fixed time later, in each direction.

Four threads a connection: one reads and notes when, one waits and writes. Sleeping threads are more exact than an event
loop, whose timers are whole milliseconds. It is a program of its own, so that it shares no interpreter with the
benchmark: delay.py PORT TARGET_PORT MILLISECONDS
"""

import queue
import socket
import sys
import threading
import time

# Bytes of one read: large, so that the work is done by the kernel.
CHUNK = 1 << 18


def serve(port, target, delay):
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", target))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink in ((near, far), (far, near)):
                late = queue.SimpleQueue()
                threading.Thread(target=receive, args=(source, late), daemon=True).start()
                threading.Thread(target=pass_on, args=(late, sink, delay), daemon=True).start()


def receive(source, late):
    chunk = b"."
    while chunk:
        try:
            chunk = source.recv(CHUNK)
        except OSError:
            chunk = b""
        late.put((time.monotonic(), chunk))


def pass_on(late, sink, delay):
    while True:
        came, chunk = late.get()
        time.sleep(max(0.0, came + delay - time.monotonic()))
        try:
            if not chunk:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(chunk)
        except OSError:
            return


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000)
