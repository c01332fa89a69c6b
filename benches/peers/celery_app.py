"""The Celery peer: the application, and its producer when it is run as a program.

    celery_app.py fill COUNT DATA | celery_app.py pace RATE COUNT
"""

import os
import sys

import pace
import stamps
from celery import Celery

url = os.environ["BENCH_REDIS"]
app = Celery("bench", broker=url, backend=url)
app.conf.update(
    task_default_queue="bench",
    # At least once, as jobsd: the message is acknowledged after the task.
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.noop")
def noop(data):
    pass


@app.task(name="bench.stamp")
def stamp(number):
    stamps.stamp(number)


def main(verb, first, second):
    if verb == "fill":
        for _ in range(int(first)):
            noop.delay(data=second)
    else:
        pace.pace(stamp.delay, float(first), int(second))


if __name__ == "__main__":
    main(*sys.argv[1:])
