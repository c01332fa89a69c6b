"""Draining with 2 ms added to each round trip to Redis, as between two machines of a provider."""

import statistics
import sys
import time

from .. import bullmq_peer, delay
from ..child import Child
from ..drain import before, drain
from ..jobsd import Daemon, fill
from ..resp import Redis
from ..row import Contender, Row, peer, rate
from ..server import Server, free_port
from .drain import must_be

ONE_WAY_MS = 1.0


def jobsd(options, concurrency=None):
    concurrency = concurrency or options.concurrency
    jobs = options.jobs(0.5)
    with Server() as server:
        fill(options.binary, server, jobs)
        with Far(server) as far:
            begin = before(server)
            with Daemon(options.binary, server, "worker", concurrency, redis_port=far.port) as daemon:
                sample = drain(server, begin, daemon.child, jobs, daemon.completed)
                daemon.expect(jobs)
            sample.more["round trip ms"] = far.round_trip
    return sample


def bullmq(options):
    jobs = options.jobs(0.1)
    with Server() as server:
        bullmq_peer.fill(server, jobs)
        with Far(server) as far:
            begin = before(server)
            with bullmq_peer.worker(server, 50, port=far.port) as worker:
                sample = drain(server, begin, worker, jobs, lambda: bullmq_peer.completed(server))
            must_be(jobs, bullmq_peer.completed(server), "completed BullMQ jobs")
            sample.more["round trip ms"] = far.round_trip
    return sample


class Far:
    """The proxy, and the round trip that is measured through it."""

    def __init__(self, server):
        self.port = free_port()
        command = [sys.executable, delay.__file__, str(self.port), str(server.port), str(ONE_WAY_MS)]
        self._child = Child(command, server.path("delay.log"))

    def __enter__(self):
        self._child.wait_until(self._answers)
        self.round_trip = round_trip(self.port)
        return self

    def __exit__(self, *_):
        self._child.stop()

    def _answers(self):
        try:
            Redis(self.port).close()
        except OSError:
            return False
        return True


def round_trip(port, samples=50):
    redis, times = Redis(port), []
    for _ in range(samples):
        began = time.monotonic()
        redis.call("PING")
        times.append((time.monotonic() - began) * 1000)
    redis.close()
    return statistics.median(times)


ROW = Row(
    "delayed",
    "drain with 2 ms added to each round trip",
    "jobs/s",
    rate,
    (
        peer("bullmq 6.7, concurrency 50", bullmq, "node"),
        Contender("jobsd", jobsd),
        Contender("jobsd, concurrency 500", lambda options: jobsd(options, 500), is_compared=False),
    ),
    "jobsd",
)
