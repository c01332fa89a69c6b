"""The functions that conformance checks enqueue. A real worker imports them; jobsd has probes under the same names."""

import time


def echo(a=None, b=None, c=None, k=None):
    return {"args": {"a": a, "b": b, "c": c, "k": k}}


def add(x, y):
    return x + y


def total(numbers):
    return sum(numbers)


def nothing():
    return None


def sleep(seconds):
    started = time.time()
    time.sleep(seconds)
    return {"started": started}


def fail(kind, message):
    raise {"ValueError": ValueError, "KeyError": KeyError, "RuntimeError": RuntimeError}[kind](message)


def flaky(failures):
    """Fails the first times, then returns how often it was run."""
    from rq import get_current_job

    job = get_current_job()
    runs = job.connection.incr(f"conformance:runs:{job.id}")
    if runs <= failures:
        raise RuntimeError(f"run {runs} of {failures} that fail")
    return runs


def on_end(job, connection, *rest):
    connection.rpush("conformance:callbacks", job.id)


def mark(n, path):
    with open(path, "a") as effects:
        effects.write(f"rq {n}\n")
    time.sleep(0.02)
