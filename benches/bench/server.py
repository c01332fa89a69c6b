"""The private Redis of one run: fresh, on a free port, append-only file on, gone afterwards."""

import os
import socket
import tempfile

from .child import Child
from .resp import Redis


class Server:
    """Every measurement starts its own, so that none inherits another's memory, file or key space."""

    def __init__(self, rewrite=False):
        self._folder = tempfile.TemporaryDirectory(prefix="jobsd-bench-")
        self.folder = self._folder.name
        self.port = free_port()
        # A rewrite of the file forks a second busy process at a moment that is chance. It stays off where a run is
        # short, and on where the file would grow without end.
        percentage = "100" if rewrite else "0"
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", percentage]
        self.child = Child(command, self.path("redis.log"))
        self.child.wait_until(self._answers)
        self.redis = Redis(self.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.redis.close()
        self.child.stop()
        self._folder.cleanup()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def path(self, name):
        """A place that is gone with this Redis."""
        return os.path.join(self.folder, name)

    def _answers(self):
        try:
            redis = Redis(self.port)
        except OSError:
            return False
        redis.close()
        return True


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
