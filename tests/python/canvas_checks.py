#!/usr/bin/env python3
"""Puts tasks together as Celery's canvas and prints what its own client sees of it, a line of JSON for each check:
{"row": name, "seen": …}. Who works for it is not known here.

    canvas_checks.py [--only TEXT]
"""

import argparse
import json
import re
import signal
import time
import uuid

from celery import chain, chord, group
from celery.result import AsyncResult, GroupResult

from canvas_tasks import add, app, echo, fail, flaky, sleep, told, total

CHECKS = []
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LIMIT = 20


def check(function):
    CHECKS.append((function.__name__.replace("_", " "), function))
    return function


def got(result, limit=LIMIT):
    """What `.get()` gives or raises."""
    try:
        return {"result": result.get(timeout=limit, disable_sync_subtasks=False)}
    except Exception as error:
        return {"raised": type(error).__name__, "words": str(error)}


def state(id, limit=LIMIT):
    """The state of a task that nobody holds, once it has one, and its result."""
    result = AsyncResult(id, app=app)
    deadline = time.monotonic() + limit
    while not result.ready() and time.monotonic() < deadline:
        time.sleep(0.02)
    value = result.result
    return [result.state, f"{type(value).__name__}: {value}" if isinstance(value, Exception) else value]


def meta(id):
    """The document of a result, without what differs each time."""
    state(id)
    document = json.loads(app.backend.get(app.backend.get_key_for_task(id)))
    document["date_done"] = bool(document["date_done"])
    # Only Python has tracebacks of Python.
    del document["traceback"]
    return document


def new():
    return str(uuid.uuid4())


def chord_keys(id):
    return sorted(key.decode()[-2:] for key in app.backend.client.keys(f"celery-taskset-meta-{id}*"))


@check
def a_chain_passes_results_on():
    result = chain(add.s(1, 2), add.s(3), add.s(4))()
    seen = got(result)
    parents = [meta(result.id), meta(result.parent.id), meta(result.parent.parent.id)]
    return [seen, parents, result.parent.get(), result.parent.parent.get()]


@check
def a_chain_of_fifty():
    return got(chain(add.s(0, 1), *[add.s(1) for _ in range(49)])())


@check
def an_immutable_step_takes_nothing():
    return got(chain(add.s(1, 2), add.si(10, 10), add.s(1))())


@check
def children_lead_through_a_chain():
    first = add.apply_async((1, 1), chain=[add.s(5).set(task_id=new()), add.s(3).set(task_id=new())])
    first.get(timeout=LIMIT)
    time.sleep(0.5)
    return [value for _, value in first.collect(intermediate=True)]


@check
def the_first_step_fails():
    result = chain(fail.s("ValueError", "first"), add.s(1), add.s(2))()
    return [got(result), state(result.id), state(result.parent.id), state(result.parent.parent.id), meta(result.id)]


@check
def the_middle_step_fails():
    result = chain(add.s(1, 1), fail.si("KeyError", "middle"), add.s(2))()
    return [got(result), state(result.id), state(result.parent.id), state(result.parent.parent.id)]


@check
def the_last_step_fails():
    result = chain(add.s(1, 1), fail.si("ValueError", "last"))()
    return [got(result), state(result.parent.id)]


@check
def a_group():
    result = group(add.s(n, n) for n in range(5))()
    return [got(result), [child.get() for child in result.children], result.successful(), meta(result.children[2].id)]


@check
def a_group_saved_and_restored():
    result = group(add.s(n, 1) for n in range(3))()
    result.save()
    got(result)
    restored = GroupResult.restore(result.id, app=app)
    return [[state(child.id) for child in restored.results], restored.completed_count(), restored == result]


@check
def a_group_with_a_failure():
    result = group(add.s(1, 1), fail.s("ValueError", "member"), add.s(2, 2))()
    return [got(result), [state(child.id) for child in result.children]]


@check
def a_chord():
    result = chord([add.s(n, n) for n in range(4)], total.s())()
    seen = [got(result), result.parent.get(), meta(result.id)["parent_id"] in [child.id for child in result.parent.children]]
    return seen + [meta(child.id) for child in result.parent.children][:1] + [chord_keys(result.parent.id)]


@check
def a_chord_keeps_the_order_of_its_header():
    return got(chord([sleep.s(0.3) | add.si(0, 0), add.s(1, 1), add.s(2, 2)], echo.s())())


@check
def a_chord_of_one():
    return got(chord([add.s(2, 2)], total.s())())


@check
def a_chord_of_none():
    return got(chord([], total.s())())


@check
def a_large_chord():
    return got(chord([add.s(n, 0) for n in range(120)], total.s())(), 60)


@check
def a_chord_whose_part_fails():
    bodyid, errback = new(), new()
    body = total.s().set(task_id=bodyid)
    body.link_error(told.s().set(task_id=errback))
    result = chord([add.s(1, 1), fail.s("ValueError", "part"), add.s(2, 2)], body)()
    seen = got(result)
    parts = [state(child.id) for child in result.parent.children]
    return [seen["raised"], seen["words"].split(" ")[-1], parts, state(errback)[1]["args"]["task_id"] == bodyid]


@check
def a_chord_whose_body_fails():
    return got(chord([add.s(1, 1), add.s(2, 2)], fail.si("ValueError", "body"))())


@check
def a_part_that_is_retried():
    return got(chord([flaky.s(2), add.s(1, 1)], total.s())(), 40)


@check
def a_chord_with_an_immutable_body():
    return got(chord([add.s(1, 1), add.s(2, 2)], add.si(3, 3))())


@check
def a_chain_through_a_group():
    result = (add.s(1, 1) | group(add.s(2), add.s(3)) | total.s())()
    return [got(result), result.parent.get(), meta(result.parent.parent.id)]


@check
def a_chain_that_ends_in_a_group():
    result = (add.s(1, 1) | group(add.s(2), add.s(3)))()
    return [got(result), meta(result.parent.id)]


@check
def a_chain_through_a_group_and_on():
    result = (add.s(1, 1) | group(add.s(2), add.s(3)) | total.s() | add.s(10) | add.s(100))()
    return got(result)


@check
def a_chain_whose_first_step_fails_before_a_group():
    result = (fail.s("ValueError", "before") | group(add.s(2), add.s(3)) | total.s())()
    return got(result)


@check
def two_groups_in_a_chain():
    result = (group(add.s(1, 1), add.s(2, 2)) | total.s() | group(add.s(1), add.s(2)) | total.s())()
    return got(result)


@check
def chains_in_a_chord():
    result = chord([chain(add.s(1, 1), add.s(1)), add.s(5, 5), chain(add.s(1, 1), add.s(1), add.s(1))], total.s())()
    return got(result)


@check
def a_chain_in_a_chord_fails():
    result = chord([chain(fail.s("ValueError", "inner"), add.s(1)), add.s(5, 5)], total.s())()
    seen = got(result)
    return [seen["raised"], seen["words"].split(" ")[-1]]


@check
def a_chord_in_a_chord():
    return got(chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(5, 5)], total.s())())


@check
def a_chord_whose_body_is_a_chain():
    return got(chord([add.s(1, 1), add.s(2, 2)], total.s() | add.s(1) | add.s(2))())


@check
def a_chord_whose_body_is_a_group():
    return got(chord([add.s(1, 1), add.s(2, 2)], group(total.s(), echo.s()))())


@check
def a_chain_of_chords():
    first = chord([add.s(1, 1), add.s(2, 2)], total.s())
    return got((first | chord([add.s(1), add.s(2)], total.s()))())


@check
def a_group_of_chains():
    result = group(chain(add.s(1, 1), add.s(1)), chain(add.s(2, 2), add.s(2)))()
    return got(result)


@check
def a_link_is_called_with_the_result():
    linked = new()
    result = add.apply_async((1, 2), link=echo.s("more").set(task_id=linked))
    seen = [got(result), state(linked)]
    return seen + [meta(result.id)["children"] == [[[linked, None], None]], meta(linked)["parent_id"] == result.id]


@check
def several_links():
    ids = [new(), new(), new()]
    links = [echo.s(n).set(task_id=id) for n, id in enumerate(ids)]
    result = add.apply_async((1, 2), link=links)
    return [got(result), [state(id) for id in ids], meta(result.id)]


@check
def an_immutable_link():
    linked = new()
    add.apply_async((1, 2), link=add.si(7, 7).set(task_id=linked))
    return state(linked)


@check
def a_link_that_is_a_chain():
    last = new()
    result = add.apply_async((1, 2), link=chain(add.s(10), add.s(100).set(task_id=last)))
    return [got(result), state(last)]


@check
def a_link_that_is_a_chord():
    last = new()
    result = add.apply_async((1, 2), link=chord([add.s(10), add.s(100)], total.s().set(task_id=last)))
    return [got(result), state(last)]


@check
def a_link_error_is_called_with_the_id():
    errback = new()
    result = fail.apply_async(("ValueError", "bad"), link_error=told.s().set(task_id=errback))
    seen = [got(result), state(errback)[1]["args"]["task_id"] == result.id]
    return seen + [meta(errback)["parent_id"] == result.id, "group_id" in meta(errback)]


@check
def a_link_error_of_a_task_that_succeeds():
    errback = new()
    result = add.apply_async((1, 1), link_error=told.s().set(task_id=errback))
    return [got(result), AsyncResult(errback, app=app).state]


@check
def a_link_error_of_a_chain():
    errback = new()
    result = chain(add.s(1, 1), fail.si("ValueError", "bad"), add.s(1)).apply_async(
        link_error=told.s().set(task_id=errback)
    )
    return [got(result), state(errback)[1]["args"]["task_id"] == result.parent.id]


@check
def a_step_put_off():
    started = time.monotonic()
    result = chain(add.s(1, 1), add.s(1).set(countdown=1))()
    return [got(result), time.monotonic() - started >= 1]


@check
def a_step_of_another_priority():
    return got(chain(add.s(1, 1), add.s(1).set(priority=9), add.s(1).set(priority=5))())


@check
def a_step_that_has_expired():
    result = chain(add.s(1, 1), add.s(1).set(expires=0.2, countdown=1))()
    return got(result)


@check
def a_part_that_has_expired():
    result = chord([add.s(1, 1).set(expires=0.2, countdown=1), add.s(1, 1)], total.s())()
    seen = got(result)
    return [seen["raised"], seen["words"].split(" ")[-1]]


@check
def results_that_are_ignored():
    result = chain(add.s(1, 1).set(ignore_result=True), add.s(1))()
    chorded = chord([add.s(1, 1).set(ignore_result=True), add.s(2, 2)], total.s())()
    return [got(result), state(result.parent.id, 0.5), got(chorded)]


@check
def an_unknown_step():
    step = app.signature("canvas_tasks.unknown", task_id=new())
    result = chain(add.s(1, 1), step, add.s(1))()
    return [got(result), state(result.id)]


@check
def special_values_pass_through():
    return got(chain(echo.s("ünï\u0000 \U0001f600", 2**70), echo.s(None))())


def out_of_time(signum, frame):
    raise SystemExit("a check did not come to its end")


def main():
    # A result that goes away unsubscribes, and in the middle of another's reading that locks the client up for ever.
    AsyncResult.__del__ = lambda result: None
    signal.signal(signal.SIGALRM, out_of_time)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for name, function in CHECKS:
        if options.only in name:
            signal.alarm(3 * LIMIT)
            try:
                seen = function()
            except Exception as error:
                seen = f"{type(error).__name__}: {error}"
            text = UUID.sub("ID", json.dumps(seen, default=repr))
            print(json.dumps({"row": name, "seen": json.loads(text)}), flush=True)


if __name__ == "__main__":
    main()
