"""The Redis protocol: as much of it as the benchmark needs, on one blocking socket."""

import socket


class Redis:
    """One connection. `call` sends one command, `pipeline` several in one write; `calls` counts them."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", buffering=1 << 16)
        self.calls = 0

    def call(self, *command):
        self.calls += 1
        self.socket.sendall(encode(*command))
        return self.reply()

    def pipeline(self, commands):
        self.calls += len(commands)
        self.socket.sendall(b"".join(encode(*command) for command in commands))
        return [self.reply() for _ in commands]

    def reply(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        raise RedisError(rest.decode() if line else "the connection was closed")

    def info(self, section):
        """The lines of INFO as a dictionary of texts."""
        lines = self.call("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def address(self):
        """Our end, as Redis names it."""
        return "%s:%d" % self.socket.getsockname()

    def close(self):
        self.file.close()
        self.socket.close()


class RedisError(Exception):
    """Redis refused a command, or went away."""


def encode(*command):
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
