"""Draining a filled queue: jobsd's own, Celery's and RQ's, each beside the real workers."""

from .. import bullmq_peer, celery_peer, reference, rq_peer
from ..drain import before, drain
from ..jobsd import Daemon, Miscount, fill
from ..row import Contender, Row, peer, rate
from ..server import Server


def native(options, concurrency=None):
    jobs = options.jobs(1)
    with Server() as server:
        fill(options.binary, server, jobs)
        begin = before(server)
        with Daemon(options.binary, server, "worker", concurrency or options.concurrency) as daemon:
            sample = drain(server, begin, daemon.child, jobs, daemon.completed)
            daemon.expect(jobs)
    return sample


def jobsd_on_celery(options):
    jobs = options.jobs(0.2)
    with Server() as server:
        celery_peer.fill(server, jobs)
        begin = before(server)
        with Daemon(options.binary, server, "worker", options.concurrency, wires=["celery"]) as daemon:
            # Done is what the producer can read, not what jobsd has completed.
            sample = drain(server, begin, daemon.child, jobs, lambda: celery_peer.written(server))
            daemon.child.wait_until(lambda: celery_peer.results(server) >= jobs)
            daemon.expect(jobs)
        must_be(jobs, celery_peer.results(server), "results of Celery jobs")
    return sample


def jobsd_on_rq(options):
    jobs = options.jobs(0.2)
    with Server() as server:
        rq_peer.fill(server, jobs)
        begin = before(server)
        with Daemon(options.binary, server, "worker", options.concurrency, wires=["rq"]) as daemon:
            sample = drain(server, begin, daemon.child, jobs, lambda: rq_peer.finished(server))
            daemon.child.wait_until(lambda: rq_peer.results(server) >= jobs)
            daemon.expect(jobs)
        must_be(jobs, rq_peer.results(server), "results of RQ jobs")
    return sample


def celery(options):
    jobs = options.jobs(0.02)
    with Server() as server:
        celery_peer.fill(server, jobs)
        begin = before(server)
        with celery_peer.worker(server, 2) as worker:
            sample = drain(server, begin, worker, jobs, lambda: celery_peer.written(server))
        must_be(jobs, celery_peer.results(server), "results of Celery jobs")
    return sample


def rq(kind, share):
    def run(options):
        jobs = options.jobs(share)
        with Server() as server:
            rq_peer.fill(server, jobs)
            begin = before(server)
            with rq_peer.worker(server, kind) as worker:
                sample = drain(server, begin, worker, jobs, lambda: rq_peer.finished(server))
            must_be(jobs, rq_peer.results(server), "results of RQ jobs")
        return sample

    return run


def bullmq(concurrency):
    def run(options):
        jobs = options.jobs(0.3)
        with Server() as server:
            bullmq_peer.fill(server, jobs)
            begin = before(server)
            with bullmq_peer.worker(server, concurrency) as worker:
                sample = drain(server, begin, worker, jobs, lambda: bullmq_peer.completed(server))
            must_be(jobs, bullmq_peer.completed(server), "completed BullMQ jobs")
        return sample

    return run


def bare(options):
    with Server() as server:
        return reference.bare(server, options.jobs(2))


def redis_benchmark(options):
    with Server() as server:
        return reference.redis_benchmark(server, options.jobs(5))


def must_be(expected, found, what):
    if expected != found:
        raise Miscount(f"there should be {expected} {what}, there are {found}")


CELERY = peer("celery 5.4, prefork 2, acks_late", celery, "python")
RQ_FORK = peer("rq 2.0, fork worker", rq(rq_peer.FORK, 0.002), "python")
RQ_SIMPLE = peer("rq 2.0, SimpleWorker", rq(rq_peer.SIMPLE, 0.01), "python")

NATIVE = Row(
    "drain",
    "drain, native no-op jobs, one daemon",
    "jobs/s",
    rate,
    (
        CELERY,
        peer("bullmq 6.7, concurrency 10", bullmq(10), "node"),
        Contender("jobsd", native),
        peer("bullmq 6.7, concurrency 50", bullmq(50), "node"),
        Contender("jobsd, concurrency 10", lambda options: native(options, 10), is_compared=False),
        Contender("redis-benchmark SET, 4 × 32", redis_benchmark, is_compared=False),
        Contender("bare A6, 4 × 32", bare),
        RQ_FORK,
        RQ_SIMPLE,
    ),
    "jobsd",
)
ON_CELERY = Row(
    "celery",
    "drain of a Celery queue, results written",
    "jobs/s",
    rate,
    (CELERY, Contender("jobsd", jobsd_on_celery, "python")),
    "jobsd",
)
ON_RQ = Row(
    "rq",
    "drain of an RQ queue, results and registries written",
    "jobs/s",
    rate,
    (RQ_SIMPLE, Contender("jobsd", jobsd_on_rq, "python"), RQ_FORK),
    "jobsd",
)
