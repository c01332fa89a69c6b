"""What it costs to have nothing to do: 20 queues, every wire on, nobody sends anything."""

import time

from .. import bullmq_peer, celery_peer, rq_peer
from ..jobsd import Daemon, queue
from ..meter import Reading, tree_rss
from ..monitor import Monitor
from ..row import Contender, Row, peer
from ..sample import Sample
from ..server import Server

QUEUES = ["bench"] + [f"bench{n}" for n in range(1, 20)]
WIRES = ["celery", "rq"]


def jobsd(options):
    more = "".join(queue(name, 10, WIRES) for name in QUEUES[1:])
    with Server() as server, Daemon(options.binary, server, "worker", 10, wires=WIRES, more=more) as daemon:
        daemon.disconnect()
        return watch(options, server, daemon.child)


def real(worker):
    def run(options):
        with Server() as server, worker(server) as running:
            return watch(options, server, running)

    return run


def watch(options, server, worker):
    # Start-up is no part of it: importing, connecting, first looks.
    time.sleep(options.seconds(10))
    monitor = Monitor(server)
    begin = Reading.take(worker.pid, server)
    time.sleep(options.seconds(30))
    worker.must_live()
    end = Reading.take(worker.pid, server)
    seconds = end.at - begin.at
    ours = server.redis.address()
    calls = sum(1 for _, who, _ in monitor.calls() if who != ours)
    more = {
        "cpu %": (end.worker - begin.worker) / seconds * 100,
        "commands/s": (end.commands - begin.commands) / seconds,
        "of them by clients": calls / seconds,
    }
    return Sample(rss=tree_rss(worker.pid), more=more)


ROW = Row(
    "idle",
    "idle, 20 queues, all wires on",
    "% CPU",
    lambda sample: sample.more["cpu %"],
    (
        peer("celery 5.4, prefork 10", real(lambda s: celery_peer.worker(s, 10, QUEUES)), "python"),
        Contender("jobsd", jobsd),
        peer("rq 2.0, one worker", real(lambda s: rq_peer.worker(s, rq_peer.FORK, QUEUES)), "python"),
        peer("bullmq 6.7, concurrency 10", real(lambda s: bullmq_peer.worker(s, 10, QUEUES)), "node"),
    ),
    "jobsd",
    more_is_better=False,
)
