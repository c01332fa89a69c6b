"""What limits cost that do not bind: the same drain without and with them, in the same rounds."""

from ..drain import before, drain
from ..jobsd import Daemon, fill
from ..row import Contender, Row, rate
from ..server import Server

# Nothing of this is ever reached by no-op jobs on fewer than 1,000 slots, but it is counted for each of them. The hold
# job of the filling daemon has no `data`, so the key has a stand-in.
WHOLE = 'limit = { concurrency = 100000, rate = "1000000/s" }\n'
KEYS = 'limit = { key = "{{ (data | default(\'\'))[:3] }}", concurrency = 1000 }\n'
KEYS_RATE = 'limit = { key = "{{ (data | default(\'\'))[:3] }}", concurrency = 1000, rate = "1000000/min" }\n'
TURNS = 'fair_by = "{{ (data | default(\'\'))[:3] }}"\n'


def limited(more):
    def run(options):
        jobs = options.jobs(1)
        with Server() as server:
            fill(options.binary, server, jobs, more)
            begin = before(server)
            with Daemon(options.binary, server, "worker", options.concurrency, more=more) as daemon:
                sample = drain(server, begin, daemon.child, jobs, daemon.completed)
                daemon.expect(jobs)
        return sample

    return run


ROW = Row(
    "limits",
    "drain, native no-op jobs, with limits that do not bind",
    "jobs/s",
    rate,
    (
        Contender("concurrency and rate of the queue", limited(WHOLE)),
        Contender("no limits", limited("")),
        Contender("1,000 keys, concurrency", limited(KEYS)),
        Contender("1,000 keys, concurrency and rate", limited(KEYS_RATE)),
        Contender("1,000 tenants take turns", limited(TURNS)),
    ),
    "no limits",
)
