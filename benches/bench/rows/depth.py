"""Whether a job costs more when many wait: the same number of jobs passes while 1,000 or 1,000,000 wait behind them.

A second daemon, whose only slot is held, keeps the number of waiting jobs where it is. What it makes Redis do is
counted in both runs alike; its own CPU in neither.
"""

from ..jobsd import BULK, Daemon, Miscount, bulk_body
from ..meter import Cost, Reading, tree_rss
from ..row import Contender, Row
from ..sample import Sample
from ..server import Server

FEW = 1000


def passing(depth):
    def run(options):
        waiting, jobs = depth(options), options.jobs(0.5)
        with Server() as server, Daemon(options.binary, server, "feeder", 1, hold=True) as feeder:
            feeder.occupy()
            feeder.enqueue(waiting)
            with Daemon(options.binary, server, "worker", options.concurrency) as worker:
                feed(feeder, waiting, jobs // 4)
                before, begin = feeder.completed(), Reading.take(worker.pid, server)
                lowest = feed(feeder, waiting, before + jobs)
                end, after = Reading.take(worker.pid, server), feeder.completed()
                rss = tree_rss(worker.pid)
            must_be_clean(feeder)
        cost = Cost.between(begin, end, after - before)
        return Sample(cost.rate, cost.worker_us, cost.redis_us, cost.commands, rss, {"fewest waiting": lowest})

    return run


def feed(feeder, waiting, completed):
    """Tops the queue up until so many jobs are completed; returns the smallest number that was seen waiting."""
    body, lowest = bulk_body(BULK), waiting
    while True:
        counts = feeder.counts()
        pending = counts["jobs"]["pending"]
        lowest = min(lowest, pending)
        if counts["totals"]["completed"] >= completed:
            return lowest
        if pending < waiting + BULK:
            feeder.post(body)


def must_be_clean(feeder):
    totals = feeder.counts()["totals"]
    if any(count for name, count in totals.items() if name != "completed"):
        raise Miscount(f"nothing should fail: {totals}")


ROW = Row(
    "depth",
    "CPU per job, 1 k → 1 M waiting (worker + Redis, with the feeding)",
    "µs/job",
    lambda sample: sample.worker_us + sample.redis_us,
    (
        Contender("jobsd, 1 k waiting", passing(lambda options: FEW)),
        Contender("jobsd, 1 M waiting", passing(lambda options: options.base * 10)),
    ),
    "jobsd, 1 k waiting",
    more_is_better=False,
)
