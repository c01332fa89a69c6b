"""The private PostgreSQL of one run, as a package installs it: every commit reaches the disk."""

import os
import shutil
import subprocess
import tempfile

from .child import Child
from .server import free_port

PROGRAMS = "/usr/lib/postgresql/15/bin"
URL = "postgres://jobsd@127.0.0.1:{port}/postgres"


class Postgres:
    """Fresh, on a free port of the loopback address, gone afterwards."""

    def __init__(self):
        self._folder = tempfile.mkdtemp(prefix="jobsd-bench-")
        self.port = free_port()
        self.url = URL.format(port=self.port)
        data = os.path.join(self._folder, "data")
        if os.geteuid() == 0:
            shutil.chown(self._folder, "nobody", "nogroup")
        made = [f"{PROGRAMS}/initdb", "--auth=trust", "--username=jobsd", "--no-sync", "--locale=C", "-D", data]
        subprocess.run(_as_nobody(made), check=True, stdout=subprocess.DEVNULL, cwd="/")
        command = [f"{PROGRAMS}/postgres", "-D", data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        self._log = tempfile.NamedTemporaryFile(prefix="jobsd-bench-", suffix=".log")
        self.child = Child(_as_nobody([*command, "-k", self._folder]), self._log.name, cwd="/")
        self.child.wait_until(self._is_ready)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._log.close()

    def sql(self, statement):
        """Runs a statement; its rows as one text."""
        command = [f"{PROGRAMS}/psql", "-X", "-q", "-A", "-t", "-c", statement, self.url]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _is_ready(self):
        asked = [f"{PROGRAMS}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0


def _as_nobody(command):
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", *command]
