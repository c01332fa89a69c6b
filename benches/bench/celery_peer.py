"""The real Celery: its worker, its producer, and how the results that it has written are counted."""

import re

from .child import Child
from .jobsd import DATA
from .place import PROGRAMS, PYTHON, program

# Messages that the real producer makes in each run; the others are copies of them under ids of their own.
ORIGINALS = 200


def environment(server):
    stamps, sent = server.path("stamps"), server.path("sent")
    return {"BENCH_REDIS": server.url, "BENCH_STAMPS": stamps, "BENCH_SENT": sent, "PYTHONPATH": PROGRAMS}


def worker(server, concurrency, queues=("bench",)):
    command = [PYTHON, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork", "--loglevel", "warning"]
    command += ["--concurrency", str(concurrency), "--queues", ",".join(queues)]
    return Child(command, server.path("celery.log"), environment(server), cwd=server.folder)


def produce(server, verb, first, second):
    command = [PYTHON, program("celery_app.py"), verb, str(first), str(second)]
    return Child(command, server.path("produce.log"), environment(server))


def fill(server, jobs):
    """Fills the list `bench` with messages of the real producer."""
    originals = min(jobs, ORIGINALS)
    with produce(server, "fill", originals, DATA) as producer:
        producer.wait(120)
    messages = server.redis.call("LRANGE", "bench", 0, -1)
    if len(messages) != originals:
        raise RuntimeError(f"{originals} messages were sent, {len(messages)} are in the list")
    copies = (renamed(messages[n % originals], n) for n in range(jobs - originals))
    push(server, "bench", copies)


def renamed(message, number):
    """The same message under another id, wherever that stands in it, and another delivery tag."""
    task = re.search(rb'"correlation_id": "([^"]+)"', message)[1]
    tag = re.search(rb'"delivery_tag": "([^"]+)"', message)[1]
    return message.replace(task, fresh(task, number)).replace(tag, fresh(tag, number))


def fresh(uuid, number):
    """An id of the same length that no other message has: the first twelve digits count."""
    digits = b"%012x" % (number + 1)
    return digits[:8] + b"-" + digits[8:] + uuid[13:]


def push(server, key, elements, batch=1000):
    commands = []
    for element in elements:
        commands.append(("LPUSH", key, element))
        if len(commands) == batch:
            server.redis.pipeline(commands)
            commands = []
    server.redis.pipeline(commands)


def written(server):
    """How many results there are: of all keys here, they alone expire (those of a node are a handful)."""
    keys = server.redis.info("keyspace").get("db0", "expires=0")
    return int(re.search(r"expires=(\d+)", keys)[1])


def results(server):
    """The same, counted one by one: exact, and too dear to be asked often."""
    return sum(1 for _ in scan(server.redis, "celery-task-meta-*"))


def scan(redis, pattern):
    """Every key of that form, at least once; while nothing is deleted, exactly once."""
    cursor = "0"
    while True:
        cursor, keys = redis.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        yield from keys
        if cursor == b"0":
            return
