"""A child process that ends with us, however we end, and takes its own children along."""

import ctypes
import os
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Child:
    """Runs `command` in a process group of its own; what it says goes to a log that is shown when it fails."""

    def __init__(self, command, log, env=None, cwd=None):
        self.log = log
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                preexec_fn=_own_group,
            )
        self.pid = self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def must_live(self):
        if self._process.poll() is not None:
            raise ChildFailed(f"{self._process.args[0]} ended with code {self._process.returncode}:\n{self.tail()}")

    def wait_until(self, ready, seconds=30):
        """Waits for `ready()`, and no longer than this child lives."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.must_live()
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self._process.args[0]} was not ready after {seconds} s:\n{self.tail()}")
            time.sleep(0.002)

    def wait(self, seconds):
        """Waits for the end of a child that ends by itself."""
        code = self._process.wait(timeout=seconds)
        if code != 0:
            raise ChildFailed(f"{self._process.args[0]} failed with code {code}:\n{self.tail()}")

    def terminate(self, seconds=30):
        """Asks it to end, as an operator would."""
        self._process.terminate()
        self._process.wait(timeout=seconds)

    def stop(self):
        """Ends the whole group at once: what it worked on is thrown away with its Redis."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()[-3000:]


class ChildFailed(Exception):
    """A program that is measured did not do what it should; the message holds what it said."""


def _own_group():
    os.setpgid(0, 0)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
