"""What Celery's own client sees of the worker on the queues `conf` and `other` of this Redis: one line of JSON a check.

It does not know who the worker is. It runs one task at a time, and nothing else uses this Redis.
"""

import argparse
import base64
import json
import os
import re
import sys
import threading
import time
import uuid
import warnings
from datetime import date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal

parser = argparse.ArgumentParser()
parser.add_argument("--redis", required=True)
parser.add_argument("--only", default="")
options = parser.parse_args()
os.environ["REDIS_URL"] = options.redis

from celery import Celery, group
from celery.exceptions import TimeoutError
from celery.result import AsyncResult
from redis import Redis

import conformance_celery_tasks as tasks

warnings.simplefilter("ignore")
DEADLINE = 30
connection = Redis.from_url(options.redis)
app = tasks.app
checks = []


def check(function):
    checks.append(function)
    return function


def until(condition, what="the condition", limit=DEADLINE):
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise TimeoutError(f"waited in vain for {what}")


def near(value, expected, slack=5):
    """Times are compared within what a busy machine needs."""
    return "about" if abs(value - expected) <= slack else f"{value}, not {expected}"


# What is published about results, by task, from the first check on.

published = {}


def listen():
    channel = Redis.from_url(options.redis).pubsub()
    channel.psubscribe("celery-task-meta-*")
    listening.set()
    for message in channel.listen():
        if message["type"] == "pmessage":
            published.setdefault(message["channel"].decode().removeprefix("celery-task-meta-"), []).append(message["data"])


listening = threading.Event()
threading.Thread(target=listen, daemon=True).start()
listening.wait()


def key(result):
    return f"celery-task-meta-{result.id}"


def stored(result):
    return connection.get(key(result))


def shape(raw, *results):
    """The bytes of a document, with what no two runs share replaced by its kind."""
    if raw is None:
        return None
    text = raw.decode()
    for n, result in enumerate(results):
        text = text.replace(result.id, f"<id {n}>")
    text = re.sub(r'"traceback": "((?:[^"\\]|\\.)*)"', lambda found: '"traceback": "%s"' % ends(found[1]), text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", "<date>", text)
    return text


def ends(traceback):
    """The first and the last line of a traceback, as it stands in a document."""
    lines = [line for line in traceback.split("\\n") if line]
    last = lines[-1]
    return f"{lines[0]} … {'celery.exceptions.Retry' if last.startswith('celery.exceptions.Retry') else last}"


def raised(result, **options):
    """What `.get()` gives or raises."""
    try:
        return {"value": result.get(timeout=DEADLINE, **options)}
    except Exception as error:
        kind = type(error)
        return {"raised": f"{kind.__module__}.{kind.__qualname__}", "bases": kind.__mro__[1].__name__, "args": repr(error.args)}


def view(result):
    """All that a client can ask of a result that has ended."""
    seen = raised(result)
    seen.update(
        state=result.state, ready=result.ready(), successful=result.successful(), failed=result.failed(),
        info=ascii(result.info), date_done=type(result.date_done).__name__, children=result.children,
        document=shape(stored(result), result), ttl=near(connection.ttl(key(result)), 3600),
        published=[shape(raw, result) for raw in until(lambda: published.get(result.id), "word of it")],
    )
    traceback = result.traceback
    seen["traceback"] = ends(traceback.replace("\n", "\\n")) if traceback else traceback
    return seen


def message(task, args=(), kwargs=None, identity=None, **headers):
    """A message as the client writes it, with other headers."""
    identity = identity or str(uuid.uuid4())
    body = json.dumps([list(args), kwargs or {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    head = {
        "lang": "py", "task": task, "id": identity, "shadow": None, "eta": None, "expires": None, "group": None,
        "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": identity, "parent_id": None,
        "argsrepr": "()", "kwargsrepr": "{}", "origin": "gen1@test", "ignore_result": False,
    }
    return {
        "body": base64.b64encode(body.encode()).decode(), "content-encoding": "utf-8", "content-type": "application/json",
        "headers": head | headers,
        "properties": {
            "correlation_id": identity, "reply_to": str(uuid.uuid4()), "delivery_mode": 2, "priority": 0,
            "delivery_info": {"exchange": "", "routing_key": "conf"}, "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def push(element, queue="conf"):
    connection.lpush(queue, element if isinstance(element, (str, bytes)) else json.dumps(element))


def works():
    """The worker goes on: a task that is sent now is done."""
    return tasks.add.delay(1, 1).get(timeout=DEADLINE) == 2


# The life of a task


@check
def a_task_that_ends_well():
    return view(tasks.add.delay(2, 3))


@check
def what_a_function_gets():
    return view(tasks.echo.delay(1, "ü", None, k=[1, {"x": True}]))


@check
def a_sum():
    return tasks.total.delay([1, 2, 3]).get(timeout=DEADLINE)


@check
def a_function_that_returns_nothing():
    return view(tasks.nothing.delay())


@check
def a_failure():
    return view(tasks.fail.delay("ValueError", "no such thing ü"))


@check
def an_unknown_task():
    return view(app.send_task("conf.no.such.task", [1]))


@check
def wrong_arguments():
    return view(app.send_task("conf.add", [1]))


@check
def a_retry():
    result = tasks.flaky.delay(1)
    until(lambda: result.state == "RETRY", "a retry")
    seen = {
        "info": ascii(result.info), "ready": result.ready(), "date_done": result.date_done,
        "traceback": bool(result.traceback), "document": shape(stored(result), result),
    }
    return seen | {"end": view(result)}


@check
def retries_that_are_used_up():
    return view(tasks.flaky.delay(9))


@check
def countdown():
    before = time.time()
    waits = tasks.sleep.apply_async([0], countdown=1.5)
    # What waits for its time is in nobody's way.
    passed = tasks.add.delay(1, 1).get(timeout=DEADLINE)
    early = waits.state
    started = waits.get(timeout=DEADLINE)["started"]
    return {"passed": passed, "meanwhile": early, "not_early": started >= before + 1.5, "soon": near(started, before + 1.5, 3)}


@check
def expires_before_its_turn():
    return view(tasks.add.apply_async([1, 1], expires=datetime.now(timezone.utc) - timedelta(seconds=1)))


@check
def ignore_result():
    result = tasks.echo.apply_async([1], ignore_result=True)
    works()
    return {"stored": stored(result), "published": published.get(result.id), "state": AsyncResult(result.id, app=app).state}


for function in checks:
    if options.only and options.only not in function.__name__:
        continue
    name = function.__name__.replace("_", " ")
    try:
        seen = function()
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
    print(json.dumps({"row": name, "seen": seen}, sort_keys=True, default=str), flush=True)
