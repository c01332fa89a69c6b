"""The real RQ: its workers, its producer, and how finished jobs are counted."""

import uuid

from .celery_peer import environment, scan
from .child import Child
from .jobsd import DATA
from .place import PYTHON, program

# Jobs that the real producer makes in each run; the others are copies of their hashes under ids of their own.
ORIGINALS = 50
FORK, SIMPLE = "rq.Worker", "rq.SimpleWorker"


def worker(server, kind, queues=("bench",)):
    command = [PYTHON, "-m", "rq.cli", "worker", "--url", server.url, "--worker-class", kind, "--quiet", *queues]
    return Child(command, server.path("rq.log"), environment(server), cwd=server.folder)


def produce(server, verb, first, second):
    command = [PYTHON, program("rq_jobs.py"), verb, str(first), str(second)]
    return Child(command, server.path("produce.log"), environment(server))


def fill(server, jobs):
    """Fills RQ's queue `bench`: a hash for each job, its id in the list."""
    originals = min(jobs, ORIGINALS)
    with produce(server, "fill", originals, DATA) as producer:
        producer.wait(120)
    ids = server.redis.call("LRANGE", "rq:queue:bench", 0, -1)
    if len(ids) != originals:
        raise RuntimeError(f"{originals} jobs were sent, {len(ids)} are in the list")
    # The id of a job stands in the name of its hash and in the list, nowhere else.
    hashes = [server.redis.call("HGETALL", b"rq:job:" + name) for name in ids]
    commands = []
    for n in range(jobs - originals):
        name = str(uuid.uuid4())
        commands += [("HSET", f"rq:job:{name}", *hashes[n % originals]), ("RPUSH", "rq:queue:bench", name)]
        if len(commands) == 1000:
            server.redis.pipeline(commands)
            commands = []
    server.redis.pipeline(commands)


def finished(server):
    """How many are in the registry of finished jobs."""
    return server.redis.call("ZCARD", "rq:finished:bench")


def results(server):
    """How many result streams there are, counted one by one."""
    return sum(1 for _ in scan(server.redis, "rq:results:*"))
