"""Pickup latency at 100 jobs a second: from the producer's call to the moment at which the handler begins.

For the peers the handler itself notes when it begins. For jobsd it is an `http` task whose target notes when the
request arrives: rendering the request and sending it are counted too, so the number is an upper bound. What the client
and the target need without jobsd is in the table as `direct`, and what passes inside Redis, from the enqueue to the
claim, as `claim`.
"""

import json
import re
import socket
import statistics
import sys
import time

from .. import bullmq_peer, celery_peer, rq_peer, target
from ..child import Child
from ..jobsd import QUEUE, Daemon, Miscount
from ..monitor import Monitor, second_mentions
from ..row import Contender, Row, peer
from ..sample import Sample
from ..server import Server, free_port

RATE = 100
# Jobs before those that count: connections are made and code is warm.
WARM = 50
TASK = """
[tasks.stamp]
queue = "{queue}"
params = {{ number = "int" }}
http = {{ method = "POST", url = "http://127.0.0.1:{port}/", body = {{ number = "{{{{ number }}}}" }} }}
"""


def jobsd(options):
    count = WARM + RATE * options.seconds(10)
    port = free_port()
    with Server() as server:
        listener = Child([sys.executable, target.__file__, str(port), server.path("stamps")], server.path("target.log"))
        task = TASK.format(queue=QUEUE, port=port)
        with listener, Daemon(options.binary, server, "worker", 10, more=task) as daemon:
            listener.wait_until(lambda: accepts(port))
            direct = direct_times(port, server)
            monitor = Monitor(server)
            sent, ids = paced_posts(daemon.admin, count)
            times = waited(server, listener, sent)
            claims = second_mentions(monitor.calls(), ids)
            daemon.child.wait_until(lambda: daemon.completed() == count)
            daemon.expect(count)
    if len(claims) != count:
        raise Miscount(f"MONITOR showed the claims of {len(claims)} of {count} jobs")
    sample = summary(times)
    counted = [claims[name] * 1000 for name, number in ids.items() if number >= WARM]
    sample.more |= {"claim " + name: value for name, value in percentiles(counted).items()}
    sample.more["direct p50"] = direct
    return sample


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def direct_times(port, server, count=100):
    """The same client and target with nothing between them."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent = {}
    for number in range(1_000_000, 1_000_000 + count):
        request = http_request({"number": number})
        time.sleep(0.002)
        sent[number] = time.monotonic_ns()
        connection.sendall(request)
        connection.recv(4096)
    connection.close()
    heard = read_stamps(server.path("stamps"))
    return statistics.median((heard[number] - at) / 1e6 for number, at in sent.items())


def http_request(body):
    text = json.dumps(body).encode()
    head = b"POST /api/v1/jobs HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(text) + text


def paced_posts(port, count):
    """Posts at a fixed rate, whether or not the last answer was quick; returns when each began, and the jobs' ids."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent, ids, began = {}, {}, time.monotonic()
    for number in range(count):
        request = http_request({"task": "stamp", "args": {"number": number}})
        time.sleep(max(0, began + number / RATE - time.monotonic()))
        sent[number] = time.monotonic_ns()
        connection.sendall(request)
        ids[accepted(connection)] = number
    connection.close()
    return sent, ids


def accepted(connection):
    """The id in the answer, which may come in parts."""
    answer = b""
    while True:
        chunk = connection.recv(65536)
        answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if length and len(body) == int(length[1]):
            break
        if not chunk:
            raise Miscount(f"jobsd closed the connection after {answer!r}")
    job = json.loads(body)
    if "id" not in job:
        raise Miscount(f"jobsd refused a job: {job}")
    return job["id"]


def waited(server, worker, sent, seconds=30):
    """Milliseconds from call to beginning, once every job has begun, without the first ones."""
    heard = {}

    def all_began():
        heard.update(read_stamps(server.path("stamps")))
        return heard.keys() >= sent.keys()

    worker.wait_until(all_began, seconds)
    return [(heard[number] - at) / 1e6 for number, at in sent.items() if number >= WARM]


def read_stamps(path):
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")[:-1]
    except FileNotFoundError:
        return {}
    return {int(number): int(at) for number, at in (line.split() for line in lines)}


def summary(times):
    return Sample(more=percentiles(times))


def percentiles(times):
    ordered = sorted(times)

    def at(share):
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    return {"p50": at(0.5), "p99": at(0.99), "max": ordered[-1]}


def real(worker, produce):
    """A real worker and its own producer, which notes when each of its calls began."""

    def run(options):
        count = WARM + RATE * options.seconds(10)
        with Server() as server, worker(server) as running:
            # One job tells that the worker is up; its number is one of those that do not count.
            with produce(server, "pace", RATE, 1) as producer:
                producer.wait(60)
            waited(server, running, read_stamps(server.path("sent")))
            with produce(server, "pace", RATE, count) as producer:
                producer.wait(120)
            return summary(waited(server, running, read_stamps(server.path("sent")), 60))

    return run


ROW = Row(
    "latency",
    "pickup at 100 jobs/s, p50",
    "ms",
    lambda sample: sample.more["p50"],
    (
        peer("celery 5.4, prefork 2", real(lambda s: celery_peer.worker(s, 2), celery_peer.produce), "python"),
        Contender("jobsd, HTTP in, HTTP out", jobsd),
        peer("bullmq 6.7, concurrency 10", real(lambda s: bullmq_peer.worker(s, 10), bullmq_peer.produce), "node"),
        peer("rq 2.0, SimpleWorker", real(lambda s: rq_peer.worker(s, rq_peer.SIMPLE), rq_peer.produce), "python"),
    ),
    "jobsd, HTTP in, HTTP out",
    more_is_better=False,
)
