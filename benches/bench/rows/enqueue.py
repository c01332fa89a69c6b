"""Putting jobs in: over jobsd's HTTP port one by one and in bulk, beside what BullMQ's own client does."""

import json
import re
import subprocess

from .. import bullmq_peer
from ..jobsd import ARGS, BULK, Daemon, Miscount, bulk_body
from ..meter import Cost, Reading, tree_rss
from ..row import Contender, Row, peer, rate
from ..sample import Sample
from ..server import Server

CONNECTIONS = 8


def http(options, share, size):
    """ApacheBench posts `size` jobs a request, over 8 connections that are kept; it is C and far from its limit."""
    requests = max(CONNECTIONS, options.jobs(share) // size)
    body = bulk_body(size) if size > 1 else json.dumps({"task": "noop", "args": ARGS}).encode()
    with Server() as server, Daemon(options.binary, server, "taker", 1, hold=True) as daemon:
        daemon.occupy()
        begin = Reading.take(daemon.pid, server)
        requests_a_second, client = post(server, daemon, requests, body)
        jobs = requests * size
        cost = Cost.between(begin, Reading.take(daemon.pid, server), jobs)
        waiting = daemon.counts()["jobs"]["pending"]
        if waiting != jobs:
            raise Miscount(f"{jobs} jobs were posted, {waiting} wait")
        rss = tree_rss(daemon.pid)
    return Sample(requests_a_second * size, cost.worker_us, cost.redis_us, cost.commands, rss, {"client %": client})


def post(server, daemon, requests, body):
    """Returns requests a second, and how much of a processor the client used."""
    path = server.path("body.json")
    with open(path, "wb") as file:
        file.write(body)
    url = f"http://127.0.0.1:{daemon.admin}/api/v1/jobs"
    # -k keeps connections, -l allows answers of any length: ids differ.
    command = ["ab", "-q", "-k", "-l", "-c", str(CONNECTIONS), "-n", str(requests), "-p", path]
    # GNU time would be one more package; the shell's own is enough.
    timed = ["bash", "-c", 'TIMEFORMAT="cpu %U %S"; time "$@"', "ab", *command, "-T", "application/json", url]
    ran = subprocess.run(timed, capture_output=True, text=True, timeout=600, check=False)
    said = ran.stdout + ran.stderr

    def number(pattern):
        return float(re.search(pattern, said)[1])

    if ran.returncode != 0 or "Non-2xx" in said or number(r"Complete requests: +(\d+)") != requests:
        raise Miscount(f"ab did not get {requests} answers:\n{said[-2000:]}")
    seconds = number(r"Time taken for tests: +([\d.]+)")
    used = number(r"cpu ([\d.]+)") + number(r"cpu [\d.]+ ([\d.]+)")
    return requests / max(seconds, 0.001), used / max(seconds, 0.001) * 100


def one_by_one(options):
    return http(options, 0.3, 1)


def bulk(options):
    # A short run posts smaller bulks: every connection gets at least one.
    return http(options, 3, min(BULK, max(1, options.base // CONNECTIONS)))


def bullmq(verb, share, size):
    def run(options):
        jobs = options.jobs(share)
        with Server() as server:
            seconds = bullmq_peer.add(server, verb, jobs, size)
            waiting = server.redis.call("LLEN", "bull:bench:wait")
        if waiting != jobs:
            raise Miscount(f"{jobs} jobs were added, {waiting} wait")
        return Sample(jobs / seconds)

    return run


ONE = Row(
    "enqueue",
    "enqueue one by one",
    "jobs/s",
    rate,
    (
        peer("bullmq 6.7, add, 1 in flight", bullmq("add", 0.1, 1), "node"),
        Contender("jobsd, HTTP, 8 connections", one_by_one, "ab"),
        peer("bullmq 6.7, add, 8 in flight", bullmq("add", 0.2, CONNECTIONS), "node"),
    ),
    "jobsd, HTTP, 8 connections",
)
MANY = Row(
    "bulk",
    "enqueue in bulks of 1,000",
    "jobs/s",
    rate,
    (
        peer("bullmq 6.7, addBulk", bullmq("bulk", 0.5, BULK), "node"),
        Contender("jobsd, HTTP, 8 connections", bulk, "ab"),
    ),
    "jobsd, HTTP, 8 connections",
)
