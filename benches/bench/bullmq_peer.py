"""The real BullMQ: its worker, its producer, and how completed jobs are counted."""

from .child import Child
from .jobsd import DATA
from .place import NODE_MODULES, program


def environment(server):
    stamps, sent = server.path("stamps"), server.path("sent")
    return {"BENCH_PORT": str(server.port), "BENCH_STAMPS": stamps, "BENCH_SENT": sent, "NODE_PATH": NODE_MODULES}


def worker(server, concurrency, queues=("bench",), port=None):
    command = ["node", program("bullmq_worker.cjs"), str(concurrency), *queues]
    extra = {"BENCH_PORT": str(port or server.port)}
    return Child(command, server.path("bullmq.log"), environment(server) | extra)


def produce(server, verb, *args):
    command = ["node", program("bullmq_producer.cjs"), verb, *map(str, args)]
    return Child(command, server.path("produce.log"), environment(server))


def add(server, verb, jobs, size):
    """Adds jobs by `add` (so many in flight) or `bulk` (so many in a call); returns the seconds that it took."""
    with produce(server, verb, jobs, DATA, size) as producer:
        producer.wait(300)
        return float(producer.tail().strip().splitlines()[-1])


def fill(server, jobs):
    add(server, "bulk", jobs, 1000)


def completed(server):
    return server.redis.call("ZCARD", "bull:bench:completed")
