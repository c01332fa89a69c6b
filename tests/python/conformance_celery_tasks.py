"""The application whose tasks conformance checks send. A real worker runs them; jobsd has probes under the same names."""

import importlib
import os
import time

from celery import Celery

app = Celery("conformance", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    result_expires=3600,
    task_default_queue="conf",
    task_routes={"conf.far.*": {"queue": "other"}},
    # One task at a time and one in the worker's hand, so that the order of starts is that of the lists.
    worker_concurrency=1,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task(name="conf.echo")
def echo(*args, **kwargs):
    return {"args": args, "kwargs": kwargs}


@app.task(name="conf.far.echo")
def far_echo(*args, **kwargs):
    return {"args": args, "kwargs": kwargs}


@app.task(name="conf.add")
def add(x, y):
    return x + y


@app.task(name="conf.total")
def total(numbers):
    return sum(numbers)


@app.task(name="conf.nothing")
def nothing():
    return None


@app.task(name="conf.sleep")
def sleep(seconds):
    started = time.time()
    time.sleep(seconds)
    return {"started": started}


@app.task(name="conf.fail")
def fail(kind, message="", args=None):
    module, _, name = kind.rpartition(".")
    raise getattr(importlib.import_module(module or "builtins"), name)(*(args if args is not None else [message]))


@app.task(name="conf.flaky", bind=True, max_retries=2)
def flaky(self, failures):
    runs = self.request.retries + 1
    if runs <= failures:
        raise self.retry(exc=RuntimeError(f"run {runs} of {failures} that fail"), countdown=1)
    return runs
