"""From the start of the program to the first job done, when one waits already."""

import time

from ..jobsd import Daemon, fill
from ..row import Contender, Row
from ..sample import Sample
from ..server import Server


def jobsd(options):
    with Server() as server:
        fill(options.binary, server, 1)
        daemon = Daemon(options.binary, server, "worker", 10)
        try:
            daemon.child.wait_until(lambda: is_done(daemon))
            seconds = time.monotonic() - daemon.started
            daemon.expect(1)
        finally:
            daemon.__exit__()
    return Sample(more={"ms": seconds * 1000})


def is_done(daemon):
    try:
        return daemon.call("/readyz")[0] == 200 and daemon.completed() == 1
    except OSError:
        return False


ROW = Row(
    "start",
    "start → first job done",
    "ms",
    lambda sample: sample.more["ms"],
    (Contender("jobsd", jobsd),),
    "jobsd",
    more_is_better=False,
)
