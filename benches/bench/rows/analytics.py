"""Events into PostgreSQL: one statement for each job, and batches of up to 500, by the same daemon on the same queue."""

import json

from ..drain import before, drain
from ..meter import tree_cpu
from ..jobsd import BULK, QUEUE, Daemon, Miscount
from ..postgres import Postgres
from ..row import Contender, Row, rate
from ..server import Server

TABLE = """CREATE TABLE user_events (id bigserial PRIMARY KEY, user_id bigint NOT NULL, event_type varchar(50) NOT NULL,
    event_data jsonb, created_at timestamptz NOT NULL)"""
MORE = """batch = {{ max = 500, wait = "200ms" }}
[database]
url = "{url}"
[tasks.track]
queue = "bench"
batch = {batch}
params = {{ user_id = "id", event_type = "string", event_data = "object?" }}
result = {{ success = true }}
[tasks.track.sql]
statements = ['''
INSERT INTO user_events (user_id, event_type, event_data, created_at)
VALUES (:user_id, :event_type, :event_data, :created_at)''']
values = {{ created_at = "{{{{ now }}}}" }}
"""
EVENT = {"event_type": "page_view", "event_data": {"page": "/jobs/4711", "referrer": "/search?q=carpenter"}}


def tracked(batch, share):
    def run(options):
        jobs = options.jobs(share)
        with Server() as server, Postgres() as postgres:
            postgres.sql(TABLE)
            more = MORE.format(url=postgres.url, batch=batch)
            with Daemon(options.binary, server, "worker", 8, more=more) as daemon:
                daemon.call(f"/api/v1/queues/{QUEUE}/pause", {})
                fill(daemon, jobs)
                begin, busy = before(server), tree_cpu(postgres.child.pid)
                daemon.call(f"/api/v1/queues/{QUEUE}/resume", {})
                sample = drain(server, begin, daemon.child, jobs, daemon.completed)
                sample.more["postgres µs/job"] = (tree_cpu(postgres.child.pid) - busy) / jobs * 1e6
                daemon.expect(jobs)
            stored = int(postgres.sql("SELECT count(DISTINCT user_id) FROM user_events"))
            if stored != jobs:
                raise Miscount(f"{stored} of {jobs} events are in the table")
        return sample

    return run


def fill(daemon, jobs):
    for first in range(0, jobs, BULK):
        events = range(first, min(first + BULK, jobs))
        daemon.post(json.dumps([{"task": "track", "args": {"user_id": n, **EVENT}} for n in events]).encode())


ROW = Row(
    name="analytics",
    title="events into PostgreSQL, its own commits on disk (rows/s)",
    unit="rows/s",
    value=rate,
    contenders=(
        Contender("jobsd, one statement a job", tracked("false", 0.04)),
        Contender("jobsd, batches of 500", tracked('{ max = 500, wait = "200ms" }', 1)),
    ),
    jobsd="jobsd, batches of 500",
)
