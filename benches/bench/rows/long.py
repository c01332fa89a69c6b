"""Whether memory grows: 5,000,000 jobs in a row through one daemon that takes them in and runs them."""

from ..jobsd import BULK, Daemon, bulk_body
from ..meter import Cost, Reading, tree_rss
from ..row import Contender, Row
from ..sample import Sample
from ..server import Server

# Jobs that wait at most: the backlog is in Redis, and Redis is not what is looked at.
BACKLOG = 20 * BULK


def jobsd(options):
    jobs, early, highest = options.jobs(50), options.jobs(1), 0.0
    with Server(rewrite=True) as server, Daemon(options.binary, server, "worker", options.concurrency) as daemon:
        begin = Reading.take(daemon.pid, server)
        body, posted, done, first = bulk_body(BULK), 0, 0, None
        while done < jobs:
            if posted < jobs and posted - done < BACKLOG:
                daemon.post(body if jobs - posted >= BULK else bulk_body(jobs - posted))
                posted += min(BULK, jobs - posted)
            done = daemon.completed()
            if done >= early:
                highest = max(highest, tree_rss(daemon.pid))
                first = first or highest
        cost = Cost.between(begin, Reading.take(daemon.pid, server), jobs)
        last = tree_rss(daemon.pid)
        daemon.expect(jobs)
    more = {"MB early": first, "MB at most": highest, "MB end": last, "growth": last / first}
    return Sample(cost.rate, cost.worker_us, cost.redis_us, cost.commands, last, more)


ROW = Row(
    "long",
    "5 M jobs in a row: RSS at the end ÷ RSS at 100 k",
    "×",
    lambda sample: sample.more["growth"],
    (Contender("jobsd", jobsd),),
    "jobsd",
    more_is_better=False,
    opt_in=True,
)
