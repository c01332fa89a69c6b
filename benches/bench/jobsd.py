"""jobsd as the benchmark runs it: its configuration, its HTTP port, and how a queue is filled before it is drained."""

import http.client
import json
import time

from .child import Child
from .server import free_port

QUEUE = "bench"
# With its name and quotes 300 bytes of arguments.
DATA = "x" * 289
ARGS = {"data": DATA}
# Jobs of one bulk request.
BULK = 1000

# Everything that a default configuration keeps and counts is on. `hold` occupies the only slot of the daemon that fills
# a queue; for the daemon that drains it, it is a no-op like the others.
CONFIG = """
[redis]
url = "redis://127.0.0.1:{redis}/0"
[node]
name = "{node}"
state_dir = "{state}"
drain = "0s"
[admin]
listen = "127.0.0.1:{admin}"
[log]
level = "warn"
[tasks.noop]
names = ["bench.noop", "rq_jobs.noop"]
queue = "bench"
params = {{ data = "string" }}
probe = {{ op = "noop" }}
[tasks.hold]
queue = "bench"
params = {{ seconds = "number" }}
probe = {{ op = "{hold}" }}
"""


class Daemon:
    """A running `jobsd run`."""

    def __init__(self, binary, server, node, concurrency, *, wires=(), hold=False, redis_port=None, more=""):
        self.admin = free_port()
        config = CONFIG.format(
            redis=redis_port or server.port,
            node=node,
            state=server.path(f"{node}.state"),
            admin=self.admin,
            hold="sleep" if hold else "noop",
        )
        config += queue(QUEUE, concurrency, wires) + more
        path = server.path(f"{node}.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(config)
        self._http = None
        self.started = time.monotonic()
        self.child = Child([binary, "run", "-c", path], server.path(f"{node}.log"))
        self.pid = self.child.pid

    def __enter__(self):
        self.child.wait_until(self._is_ready)
        return self

    def __exit__(self, *_):
        self.disconnect()
        self.child.stop()

    def call(self, path, body=None):
        """One request on a connection that is kept; returns the status and the answer's JSON."""
        if self._http is None:
            self._http = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if data else {}
        try:
            self._http.request("POST" if data else "GET", path, data, headers)
            answer = self._http.getresponse()
            text = answer.read()
        except OSError:
            self.disconnect()
            raise
        return answer.status, json.loads(text) if text[:1] in (b"{", b"[") else text

    def disconnect(self):
        if self._http is not None:
            self._http.close()
            self._http = None

    def counts(self):
        """The queue's row of `GET /api/v1/queues`: jobs by state, and totals."""
        status, answer = self.call("/api/v1/queues")
        if status != 200:
            raise Miscount(f"GET /api/v1/queues answered {status}: {answer}")
        return next(row for row in answer["queues"] if row["queue"] == QUEUE)

    def completed(self):
        return self.counts()["totals"]["completed"]

    def post(self, body):
        status, answer = self.call("/api/v1/jobs", body)
        if status >= 300:
            raise Miscount(f"POST /api/v1/jobs answered {status}: {answer}")
        return answer

    def enqueue(self, jobs):
        """Puts no-op jobs in, in bulk."""
        whole = bulk_body(BULK)
        for _ in range(jobs // BULK):
            self.post(whole)
        if jobs % BULK:
            self.post(bulk_body(jobs % BULK))

    def occupy(self):
        """Fills the only slot, so that nothing else of the queue runs here."""
        self.post({"task": "hold", "args": {"seconds": 86400}})
        self.child.wait_until(lambda: self.counts()["jobs"]["active"] == 1)

    def leave(self):
        """Ends as in a deploy: what ran goes back to its queue."""
        self.disconnect()
        self.child.terminate()

    def expect(self, completed):
        """Every job must have come to its end, once, without a failure."""
        totals, jobs = self.counts()["totals"], self.counts()["jobs"]
        wrong = {name: count for name, count in totals.items() if name != "completed" and count}
        waiting = {name: count for name, count in jobs.items() if name not in ("completed",) and count}
        if totals["completed"] != completed or wrong or waiting:
            raise Miscount(f"{completed} jobs should be completed and nothing else: {totals}, {jobs}")

    def _is_ready(self):
        try:
            return self.call("/readyz")[0] == 200
        except OSError:
            return False


class Miscount(Exception):
    """A run whose jobs do not add up is no measurement."""


def queue(name, concurrency, wires):
    quoted = ", ".join(f'"{wire}"' for wire in wires)
    return f'[queues.{name}]\nwires = [{quoted}]\nconcurrency = {concurrency}\n'


def bulk_body(jobs):
    """Each job of a full body begins with a number of its own: where a limit has a key, that is its value."""
    return json.dumps([{"task": "noop", "args": {"data": f"{n:03}" + DATA[3:]}} for n in range(jobs)]).encode()


def fill(binary, server, jobs, more=""):
    """Leaves `jobs` waiting jobs and no daemon behind; the last of them is the one that held the slot."""
    with Daemon(binary, server, "filler", 1, hold=True, more=more) as daemon:
        daemon.occupy()
        daemon.enqueue(jobs - 1)
        daemon.leave()
