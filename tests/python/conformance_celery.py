"""What Celery's own client sees of the worker on the queues `conf` and `other` of this Redis: one line of JSON a check.

It does not know who the worker is. It runs one task at a time, and nothing else uses this Redis.
"""

import argparse
import base64
import faulthandler
import gc
import json
import os
import re
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
# A result that the collector takes while the client holds its lock wants that lock too, and the client hangs for ever.
gc.disable()
# Whatever else may hang does not do so in silence.
faulthandler.dump_traceback_later(300, exit=True)
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
        # Of a task that it has killed, Celery's worker may say the same thing twice.
        published=list(dict.fromkeys(shape(raw, result) for raw in until(lambda: published.get(result.id), "word of it"))),
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


@check
def expires_while_it_waits():
    tasks.sleep.delay(1.5)
    late = tasks.add.apply_async([1, 1], expires=0.7)
    timely = tasks.add.apply_async([1, 1], expires=60)
    return {"late": view(late), "timely": raised(timely)}


@check
def eta():
    at = datetime.now(timezone.utc) + timedelta(seconds=1.2)
    results = [
        tasks.sleep.apply_async([0], eta=form)
        for form in (at, at.replace(tzinfo=None), at.astimezone(timezone(timedelta(hours=-5))))
    ]
    started = [result.get(timeout=DEADLINE)["started"] for result in results]
    return {
        "not_early": [moment >= at.timestamp() for moment in started],
        "soon": [near(moment, at.timestamp(), 3) for moment in started],
    }


@check
def an_eta_that_has_passed():
    return raised(tasks.add.apply_async([1, 1], eta=datetime(2020, 1, 1, tzinfo=timezone.utc)))


# What travels


@check
def every_form_of_json():
    values = {
        "datetime": datetime(2024, 5, 6, 7, 8, 9, 123456), "utc": datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc),
        "offset": datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
        "date": date(2024, 5, 6), "time": clock(1, 2, 3), "decimal": Decimal("1.10"), "bytes": b"\x00\xff", "text": b"abc",
        "uuid": uuid.UUID("12345678123456781234567812345678"),
    }
    result = tasks.echo.delay(values)
    got = result.get(timeout=DEADLINE)["args"][0]
    return {"equal": got == values, "got": ascii(got), "document": shape(stored(result), result)}


@check
def numbers():
    values = [
        0, -1, 2**53 + 1, 2**63, -(2**63) - 1, 2**70, -(10**40), 1.5, -0.0, 1e16, 1e-7, 1e308, 5e-324, 0.1 + 0.2,
        float("nan"), float("inf"), float("-inf"), True, False, None,
    ]
    result = tasks.echo.delay(*values)
    return {"got": ascii(result.get(timeout=DEADLINE)["args"]), "document": shape(stored(result), result)}


@check
def texts():
    values = ["", "ü ☃ 😀", "a\0b\x1f\x7f", "\ud800", "a\udfffb\\", "\u2028\u2029", "\"'/<>&", "e\u0301", "\ufeff"]
    result = tasks.echo.delay(*values)
    got = result.get(timeout=DEADLINE)["args"]
    return {"equal": got == values, "got": ascii(got), "document": shape(stored(result), result)}


@check
def shapes():
    values = [(1, (2,)), {"": {}, "1": []}, {1: "a", None: "b", True: "c"}, [[[[[[1]]]]]], {"b": 1, "a": 2}]
    result = tasks.echo.delay(*values, **{"ü": 1, "class": 2, "with space": 3})
    return {"got": ascii(result.get(timeout=DEADLINE)), "document": shape(stored(result), result)}


@check
def a_large_argument():
    text = "x" * 300_000 + "ü"
    return tasks.echo.delay(text).get(timeout=DEADLINE)["args"] == [text]


@check
def compressed():
    return {name: raised(tasks.add.apply_async([2, 3], compression=name)) for name in ("zlib", "gzip")}


@check
def compressed_in_another_way():
    return {name: raised(tasks.add.apply_async([2, 3], compression=name)) for name in ("bzip2", "lzma")}


@check
def routes():
    far = tasks.far_echo.delay(1)
    named = tasks.add.apply_async([1, 2], queue="other")
    return {"far": raised(far), "named": raised(named)}


@check
def an_id_of_the_producers_own():
    return view(tasks.add.apply_async([1, 2], task_id="my-own:id/1"))


@check
def options_that_change_nothing():
    result = tasks.add.apply_async([1, 2], shadow="pretty", headers={"trace": "abc"}, retry=False, argsrepr="(hidden)")
    return view(result)


@check
def a_group():
    result = group(tasks.add.s(n, n) for n in range(3)).apply_async()
    values = result.get(timeout=DEADLINE)
    documents = [shape(stored(child), child).replace(result.id, "<group>") for child in result]
    return {"values": values, "documents": documents, "done": result.completed_count(), "successful": result.successful()}


@check
def a_parent():
    result = app.send_task("conf.add", [1, 2], parent_id="the-parent", root_id="the-root", group_id="the-group")
    return view(result)


@check
def protocol_1():
    old = Celery("old", broker=options.redis, backend=options.redis)
    old.conf.update(task_protocol=1, task_default_queue="conf", result_expires=3600)
    seen = {
        "ends_well": view(old.send_task("conf.add", [1, 2])), "fails": raised(old.send_task("conf.fail", ["ValueError", "x"])),
        "keywords": raised(old.send_task("conf.echo", [1], {"k": "ü"})), "unknown": raised(old.send_task("conf.none")),
        "expired": raised(old.send_task("conf.add", [1, 2], expires=-1)),
    }
    before = time.time()
    waits = old.send_task("conf.sleep", [0], countdown=1)
    seen["not_early"] = waits.get(timeout=DEADLINE)["started"] >= before + 1
    return seen


# The order of starts


@check
def priorities():
    """0 comes first; within a step it is the order of arrival."""
    blockers = [tasks.sleep.delay(0.8) for _ in range(2)]
    sent = {n: tasks.sleep.apply_async([0.02], priority=n) for n in (9, 7, 6, 5, 3, 2, 1, 0)}
    started = {n: result.get(timeout=DEADLINE)["started"] for n, result in sent.items()}
    for blocker in blockers:
        blocker.get(timeout=DEADLINE)
    return sorted(started, key=started.get)


@check
def the_order_of_arrival():
    tasks.sleep.delay(0.5)
    sent = [tasks.sleep.delay(0.02) for _ in range(5)]
    started = [result.get(timeout=DEADLINE)["started"] for result in sent]
    return started == sorted(started)


@check
def many_tasks():
    results = [tasks.add.delay(n, 1) for n in range(100)]
    return sum(result.get(timeout=DEADLINE) for result in results)


# How tasks fail


@check
def exceptions():
    kinds = {
        "a builtin": ["KeyError", "the key"], "without arguments": ["ValueError", "", []],
        "of several arguments": ["ValueError", "", ["a", 2, None, {"k": [1.5]}]], "of the system": ["ConnectionResetError", "by peer"],
        "of a module": ["decimal.Inexact", "words"], "of a module that the client lacks": ["sunau.Error", "words"],
        "of an empty text": ["UnicodeError", ""], "not of Python's usual": ["TimeoutError", "late"],
    }
    return {name: view(tasks.fail.delay(*args)) for name, args in kinds.items()}


@check
def a_hard_time_limit():
    return view(tasks.sleep.apply_async([30], time_limit=1))


@check
def a_soft_time_limit():
    return view(tasks.sleep.apply_async([30], soft_time_limit=1, time_limit=20))


@check
def a_time_limit_that_is_not_reached():
    return raised(tasks.add.apply_async([1, 2], time_limit=20, soft_time_limit=10))


# What is done with results


@check
def forget():
    result = tasks.add.delay(1, 2)
    result.get(timeout=DEADLINE)
    result.forget()
    return {"stored": stored(result), "state": AsyncResult(result.id, app=app).state}


@check
def a_result_that_nobody_wrote():
    result = AsyncResult("nobody", app=app)
    try:
        result.get(timeout=0.3)
    except Exception as error:
        return {"state": result.state, "get": type(error).__name__, "info": result.info}


@check
def a_success_is_not_overwritten():
    """A message that comes twice, the second time after its end and with arguments that fail."""
    first = message("conf.add", [1, 2])
    identity = first["headers"]["id"]
    push(first)
    result = AsyncResult(identity, app=app)
    value = result.get(timeout=DEADLINE)
    before = stored(result)
    push(message("conf.fail", ["ValueError", "x"], identity=identity))
    works()
    return {"value": value, "same": stored(result) == before, "state": AsyncResult(identity, app=app).state}


@check
def a_failure_may_be_overwritten():
    first = message("conf.fail", ["ValueError", "x"])
    identity = first["headers"]["id"]
    push(first)
    until(lambda: AsyncResult(identity, app=app).state == "FAILURE", "a failure")
    push(message("conf.add", [1, 2], identity=identity))
    until(lambda: AsyncResult(identity, app=app).state == "SUCCESS", "a success")
    return AsyncResult(identity, app=app).result


@check
def a_result_that_is_waited_for_from_the_start():
    """Published, not polled: it is there long before the next poll would be."""
    result = tasks.sleep.delay(0.3)
    return {"value": bool(result.get(timeout=DEADLINE, interval=20)), "state": result.state}


@check
def a_callback_of_the_client():
    seen = []
    group([tasks.add.s(1, 1), tasks.add.s(2, 2)])().get(timeout=DEADLINE, callback=lambda task, value: seen.append(value))
    return sorted(seen)


@check
def propagation_can_be_switched_off():
    return {"got": repr(tasks.fail.delay("ValueError", "x").get(timeout=DEADLINE, propagate=False))}


# Messages that nobody should send: what follows them is done.


@check
def a_message_without_a_task():
    bad = message("conf.add", [1, 2])
    del bad["headers"]["task"]
    push(bad)
    return {"goes_on": works(), "stored": connection.get(f"celery-task-meta-{bad['headers']['id']}")}


@check
def pickle():
    result = tasks.add.apply_async([1, 2], serializer="pickle")
    return {"goes_on": works(), "state": result.state, "info": ascii(result.info)}


@check
def an_eta_that_cannot_be_read():
    bad = message("conf.add", [1, 2], eta="tomorrow")
    push(bad)
    result = AsyncResult(bad["headers"]["id"], app=app)
    return {"goes_on": works(), "state": result.state, "info": ascii(result.info)}


@check
def a_body_that_cannot_be_read():
    bad = message("conf.add", [1, 2])
    bad["body"] = base64.b64encode(b"[[1, 2").decode()
    push(bad)
    result = AsyncResult(bad["headers"]["id"], app=app)
    return {"goes_on": works(), "state": result.state, "info": ascii(result.info)}


# The last one: a worker may be gone then.


@check
def an_element_that_is_not_json():
    push("hello")
    result = tasks.add.delay(1, 1)
    try:
        return {"goes_on": result.get(timeout=3)}
    except TimeoutError:
        return {"goes_on": None}


for function in checks:
    if options.only and options.only not in function.__name__:
        continue
    name = function.__name__.replace("_", " ")
    try:
        seen = function()
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
    print(json.dumps({"row": name, "seen": seen}, sort_keys=True, default=str), flush=True)
