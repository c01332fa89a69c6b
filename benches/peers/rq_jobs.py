"""The RQ peer: the jobs, and their producer when this is run as a program.

    rq_jobs.py fill COUNT DATA | rq_jobs.py pace RATE COUNT
"""

import os
import sys

import pace
import stamps


def noop(data):
    pass


def stamp(number):
    stamps.stamp(number)


def main(verb, first, second):
    from redis import Redis
    from rq import Queue

    queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_REDIS"]))
    if verb == "fill":
        for _ in range(int(first)):
            queue.enqueue("rq_jobs.noop", kwargs={"data": second})
    else:
        pace.pace(lambda number: queue.enqueue("rq_jobs.stamp", number), float(first), int(second))


if __name__ == "__main__":
    main(*sys.argv[1:])
