"""The Celery application whose tasks are put together by canvas_checks.py. A real worker runs it; jobsd has probes under
the same names."""

import os

from celery import Celery

app = Celery("canvas", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    task_default_queue="canvas",
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    timezone="UTC",
    enable_utc=True,
    worker_prefetch_multiplier=1,
    # What newer releases make of an error callback of a chord; said, so that they do not warn.
    task_allow_error_cb_on_chord_header=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def echo(a=None, b=None):
    return {"args": {"a": a, "b": b}}


@app.task
def fail(kind, message):
    raise {"ValueError": ValueError, "KeyError": KeyError}[kind](message)


@app.task
def told(task_id):
    """An error callback of the kind that is published: it takes no more than an id."""
    return {"args": {"task_id": task_id}}


@app.task(bind=True)
def flaky(self, failures):
    """Fails the first times, then returns how often it was run."""
    if self.request.retries < failures:
        raise self.retry(exc=RuntimeError("again"), countdown=0)
    return self.request.retries + 1


@app.task
def sleep(seconds):
    import time

    time.sleep(seconds)
    return {"started": 0}
