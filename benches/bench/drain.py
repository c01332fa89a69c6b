"""How a filled queue is drained and what is counted: one procedure for every system."""

import time

from .meter import Cost, Reading, tree_rss
from .sample import Sample

# How often the done jobs are counted: for a peer by one small command, for jobsd by one request.
POLL = 0.02
# A system that gets nothing done for this long has failed.
PATIENCE = 60


def before(server):
    """To be taken when the queue is filled and the worker is not started yet."""
    return Reading.take(None, server)


def drain(server, opened, worker, jobs, done):
    """Waits until `done()` says that all jobs are done; returns what the larger part of them cost.

    `worker` has just been started on the filled queue. The clock starts when the first jobs are seen done, so that no
    start-up is counted, for nobody. Where half is over before that is seen (few jobs), it starts before the worker,
    with the reading `opened`.
    """
    first, count, seen = 0, 0, time.monotonic()
    while count < jobs:
        worker.must_live()
        now = done()
        if now > count:
            count, seen = now, time.monotonic()
            if first == 0 and count < jobs / 2:
                opened, first = Reading.take(worker.pid, server), done()
        elif time.monotonic() - seen > PATIENCE:
            raise TimeoutError(f"{count} of {jobs} jobs were done, and then none for {PATIENCE} s:\n{worker.tail()}")
        if count < jobs:
            time.sleep(POLL)
    closed = Reading.take(worker.pid, server)
    cost = Cost.between(opened, closed, jobs - first)
    return Sample(
        rate=cost.rate,
        worker_us=cost.worker_us,
        redis_us=cost.redis_us,
        commands=cost.commands,
        rss=tree_rss(worker.pid),
    )
