"""The application of tests/it/beside/celery.rs: what its real worker does, and its producer sends."""

import os
import time

from celery import Celery

app = Celery("beside", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    task_default_queue="conf",
    task_acks_late=os.environ.get("ACKS") == "late",
    broker_transport_options={"visibility_timeout": int(os.environ.get("VISIBILITY", "3600"))},
)


def note(word, n, path):
    with open(path, "a") as effects:
        effects.write(f"{word} {n}\n")


@app.task(name="beside.mark")
def mark(n, path):
    note("begun", n, path)
    time.sleep(0.05)
    note("celery", n, path)


@app.task(name="beside.long")
def long(path):
    note("celery", "long", path)
