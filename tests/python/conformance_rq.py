"""What RQ's own clients see of the workers on the queues `conf` and `other` of this Redis: one line of JSON a check.

It does not know who the workers are. There are two of them, they also schedule, and nothing else uses this Redis.
"""

import argparse
import itertools
import json
import re
import subprocess
import sys
import threading
import time
import uuid
import warnings
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from redis import Redis
from rq import Callback, Queue, Retry, Worker
from rq.command import send_kill_horse_command, send_shutdown_command, send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.group import Group
from rq.job import Dependency, Job
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

import conformance_tasks as tasks

try:
    from rq import Repeat
    from rq.command import send_stop_execution_command
    from rq.exceptions import DuplicateJobError
    from rq.rate_limit import RateLimit, RateLimitRegistry
    from rq.webhook import Webhook
except ImportError:
    newest = False
else:
    newest = True

warnings.simplefilter("ignore")
DEADLINE = 30

parser = argparse.ArgumentParser()
parser.add_argument("--redis", required=True)
parser.add_argument("--rq", required=True, help="RQ's command line")
parser.add_argument("--only", default="")
options = parser.parse_args()
connection = Redis.from_url(options.redis)
queue = Queue("conf", connection=connection)
other = Queue("other", connection=connection)
checks = []


def check(function):
    checks.append(function)
    return function


def check_newest(function):
    """What only the clients of RQ 3.0 can ask for."""
    return check(function) if newest else function


def until(condition, what="the condition", limit=DEADLINE):
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise TimeoutError(f"waited in vain for {what}")


def ended(job, *statuses):
    """The job's status when it is one of these (or any that is an end)."""
    statuses = statuses or ("finished", "failed", "stopped", "canceled")
    until(lambda: job.get_status() in statuses, f"{job.id} to be {statuses}, it is {job.get_status()}")
    return str(job.get_status().value if hasattr(job.get_status(), "value") else job.get_status())


def status(job):
    found = job.get_status()
    return getattr(found, "value", found)


def near(value, expected, slack=5):
    """Times are compared within what a busy machine needs."""
    return "about" if abs(value - expected) <= slack else f"{value}, not {expected}"


def registries(job):
    q = Queue(job.origin, connection=connection)
    found = {
        "finished": q.finished_job_registry, "failed": q.failed_job_registry, "scheduled": q.scheduled_job_registry,
        "deferred": q.deferred_job_registry, "canceled": q.canceled_job_registry,
    }
    listed = [name for name, registry in found.items() if job.id in registry.get_job_ids()]
    started = [i for i in q.started_job_registry.get_job_ids() if i.split(":")[0] == job.id]
    return listed + ["started"] * len(started)


def hash_of(job):
    return {k.decode(): v for k, v in connection.hgetall(job.key).items()}


def last_line(job):
    result = job.latest_result()
    return result.exc_string.strip().splitlines()[-1] if result and result.exc_string else None


def pause():
    """Suspends the workers. One of RQ's own that waits for a job already takes one more: it is given one."""
    suspend(connection)
    fillers = []
    while not all(w.get_state() == "suspended" for w in Worker.all(connection=connection)):
        fillers.append(queue.enqueue(tasks.nothing))
        time.sleep(0.3)
    for filler in fillers:
        queue.remove(filler)


# The life of a job


@check
def a_job_that_ends_well():
    job = queue.enqueue(tasks.add, 2, 3)
    ended(job)
    job.refresh()
    return {
        "status": status(job), "value": job.return_value(), "type": job.latest_result().type.name,
        "registries": registries(job), "results": len(job.results()),
        "times": bool(job.enqueued_at <= job.started_at <= job.ended_at), "heartbeat": bool(job.last_heartbeat),
        "ttl": near(connection.ttl(job.key), 500), "result_ttl": near(connection.ttl(f"rq:results:{job.id}"), 500),
        "score": near(connection.zscore("rq:finished:conf", job.id), time.time() + 500),
        "executions": len(job.get_executions()), "has_worker": bool(job.worker_name),
    }


@check
def what_a_function_gets():
    job = queue.enqueue(tasks.echo, 1, "ü", None, k=[1, {"x": True}])
    ended(job)
    return job.return_value()


@check
def a_sum():
    job = queue.enqueue(tasks.total, [1, 2, 3])
    ended(job)
    return job.return_value()


@check
def a_function_that_returns_nothing():
    job = queue.enqueue(tasks.nothing)
    ended(job)
    stream = connection.xrevrange(f"rq:results:{job.id}")
    return {"value": job.return_value(), "stored": b"return_value" in stream[0][1], "type": stream[0][1][b"type"].decode()}


@check
def what_a_result_says_of_its_attempt():
    def words(job):
        ended(job)
        result = job.latest_result()
        begun, over = getattr(result, "execution_started_at", None), getattr(result, "execution_ended_at", None)
        return {
            "worker": bool(getattr(result, "worker_name", None)), "execution": bool(getattr(result, "execution_id", None)),
            "times": bool(begun and over and result.created_at - timedelta(seconds=5) < begun <= over),
        }
    return [words(queue.enqueue(tasks.add, 1, 2)), words(queue.enqueue(tasks.fail, "ValueError", "x"))]


@check
def json_instead_of_pickle():
    q = Queue("conf", connection=connection, serializer=JSONSerializer)
    job = q.enqueue(tasks.echo, 1, k="ü", meta={"m": 1})
    ended(job)
    job.refresh()
    value = job.return_value() if status(job) == "finished" else None
    return {"status": status(job), "value": value, "meta": job.meta}


@check
def a_running_job():
    job = queue.enqueue(tasks.sleep, 1.5, meta={"m": 1})
    until(lambda: status(job) == "started", "a start")
    job.refresh()
    worker = Worker.find_by_key(f"rq:worker:{job.worker_name}", connection=connection)
    executions = job.get_executions()
    seen = {
        "registries": registries(job), "executions": len(executions),
        "member": connection.zscore("rq:wip:conf", f"{job.id}:{executions[0].id}") > time.time() + 30,
        "execution": near(executions[0].created_at.timestamp(), time.time()),
        "ttl": connection.ttl(job.key), "in_queue": job.id in queue.job_ids, "position": job.get_position(),
        "worker_state": worker.get_state(), "worker_job": worker.get_current_job_id() == job.id, "meta": job.meta,
        "worker_is_listed": worker.name in [w.name for w in Worker.all(connection=connection)],
        "started_count": queue.started_job_registry.count,
    }
    ended(job)
    job.refresh()
    seen["after"] = {"registries": registries(job), "meta": job.meta, "status": status(job)}
    until(lambda: Worker.find_by_key(worker.key, connection=connection).get_state() == "idle", "an idle worker")
    seen["current_job_after"] = Worker.find_by_key(worker.key, connection=connection).get_current_job_id()
    seen["value"] = near(job.return_value()["started"] if isinstance(job.return_value()["started"], float) else time.time(), time.time())
    return seen


@check
def a_reader_that_cleans_up_fails_no_running_job():
    job = queue.enqueue(tasks.sleep, 1)
    until(lambda: status(job) == "started", "a start")
    for _ in range(5):
        queue.started_job_registry.cleanup()
    return {"then": status(job), "end": ended(job)}


@check
def a_job_that_fails():
    job = queue.enqueue(tasks.fail, "ValueError", "no such thing")
    ended(job)
    result = job.latest_result()
    return {
        "status": status(job), "type": result.type.name, "last_line": last_line(job),
        "traceback": result.exc_string.startswith("Traceback (most recent call last):"), "exc_info": bool(job.exc_info),
        "registries": registries(job), "value": job.return_value(), "ttl": near(connection.ttl(job.key), 31536000),
        "score": near(connection.zscore("rq:failed:conf", job.id), time.time() + 31536000),
    }


@check
def an_unknown_function():
    job = queue.enqueue("conformance_tasks.no_such_function", 1)
    ended(job)
    return {"status": status(job), "class": last_line(job).split(":")[0], "registries": registries(job)}


@check
def wrong_arguments():
    job = queue.enqueue(tasks.add, 1)
    ended(job)
    return {"status": status(job), "last_line": last_line(job)}


@check
def data_that_nobody_can_read():
    job = queue.create_job(tasks.add, args=(1, 2))
    job.save()
    connection.hset(job.key, "data", b"\x80\x05garbage")
    connection.hset(job.key, "status", "queued")
    connection.rpush(queue.key, job.id)
    bare = Job(job.id, connection=connection)
    until(lambda: bare.get_status() == "failed", "a failure")
    return {"status": status(bare), "listed": connection.zscore("rq:failed:conf", job.id) is not None}


# What its producer asks for


@check
def result_ttl_0():
    job = queue.enqueue(tasks.add, 1, 1, result_ttl=0)
    until(lambda: not Job.exists(job.id, connection), "the end of the job")
    return {"stream": connection.exists(f"rq:results:{job.id}"), "listed": connection.zscore("rq:finished:conf", job.id)}


@check
def result_ttl_for_ever():
    job = queue.enqueue(tasks.add, 1, 1, result_ttl=-1)
    ended(job)
    return {
        "ttl": connection.ttl(job.key), "stream": connection.ttl(f"rq:results:{job.id}"),
        "score": str(connection.zscore("rq:finished:conf", job.id)),
    }


@check
def failure_ttls():
    short = queue.enqueue(tasks.fail, "ValueError", "x", failure_ttl=100)
    ever = queue.enqueue(tasks.fail, "ValueError", "x", failure_ttl=-1)
    ended(short), ended(ever)
    return {
        "short": [near(connection.ttl(short.key), 100), near(connection.ttl(f"rq:results:{short.id}"), 100)],
        "ever": [connection.ttl(ever.key), connection.zscore("rq:failed:conf", ever.id)],
    }


@check
def a_ttl_that_ends_before_its_turn():
    pause()
    job = queue.enqueue(tasks.add, 1, 1, ttl=1)
    stays = queue.enqueue(tasks.add, 1, 1, ttl=60)
    until(lambda: not Job.exists(job.id, connection), "its end")
    resume(connection)
    ended(stays)
    return {"gone": Job.exists(job.id, connection), "other": status(stays), "ttl": near(connection.ttl(stays.key), 500)}


@check
def a_timeout():
    job = queue.enqueue(tasks.sleep, 30, job_timeout=1)
    ended(job)
    return {"status": status(job), "last_line": last_line(job)}


@check
def at_front():
    pause()
    first = queue.enqueue(tasks.add, 1, 1)
    front = queue.enqueue(tasks.add, 1, 1, at_front=True)
    order = queue.job_ids.index(front.id) < queue.job_ids.index(first.id)
    resume(connection)
    return {"in_front": order, "ends": [ended(front), ended(first)]}


@check
def at_front_is_done_first():
    pause()
    jobs = [queue.enqueue(tasks.sleep, 0.5) for _ in range(4)]
    front = queue.enqueue(tasks.sleep, 0.5, at_front=True)
    resume(connection)
    for job in [*jobs, front]:
        ended(job)
        job.refresh()
    return {"before_the_last": front.started_at < jobs[-1].started_at - timedelta(seconds=0.3)}


@check
def suspend_and_resume():
    pause()
    job = queue.enqueue(tasks.add, 1, 1)
    time.sleep(1.5)
    seen = {"waits": status(job), "length": len(queue)}
    resume(connection)
    seen["then"] = ended(job)
    until(lambda: all(w.get_state() == "idle" for w in Worker.all(connection=connection)), "idle workers")
    return seen


@check
def suspend_while_a_job_runs():
    job = queue.enqueue(tasks.sleep, 1)
    until(lambda: status(job) == "started", "a start")
    suspend(connection)
    until(lambda: "suspended" in [w.get_state() for w in Worker.all(connection=connection)] or queue.enqueue(tasks.nothing) is None or time.sleep(0.3), "the other worker")
    ended(job)
    job.refresh()
    its = lambda: Worker.find_by_key(f"rq:worker:{job.worker_name}", connection=connection).get_state()
    seen = until(lambda: its() == "suspended", "its worker to wait")
    resume(connection)
    return seen


@check
def retries_at_once():
    job = queue.enqueue(tasks.flaky, 2, retry=Retry(max=3))
    ended(job)
    job.refresh()
    return {"status": status(job), "value": job.return_value(), "left": job.retries_left, "results": len(job.results())}


@check
def a_retry_that_waits():
    job = queue.enqueue(tasks.flaky, 1, retry=Retry(max=2, interval=[2, 60]))
    until(lambda: status(job) == "scheduled", "a schedule")
    at = until(lambda: job.id in queue.scheduled_job_registry.get_job_ids() and queue.scheduled_job_registry.get_scheduled_time(job), "its place")
    job.refresh()
    seen = {"wait": near((at - datetime.now(timezone.utc)).total_seconds(), 1.5, 2), "left": job.retries_left, "results": len(job.results())}
    seen["end"] = ended(job)
    seen["registries"] = registries(job)
    return seen


@check
def retries_after_several_intervals():
    job = queue.enqueue(tasks.flaky, 2, retry=Retry(max=2, interval=[1, 3]))
    begun = time.time()
    seen = {"end": ended(job), "took": near(time.time() - begun, 4, 2.5)}
    job.refresh()
    return {**seen, "left": job.retries_left, "value": job.return_value(), "registries": registries(job)}


@check
def retries_that_are_used_up():
    job = queue.enqueue(tasks.fail, "RuntimeError", "always", retry=Retry(max=1))
    ended(job)
    job.refresh()
    return {"status": status(job), "left": job.retries_left, "results": len(job.results()), "registries": registries(job)}


@check
def a_retry_that_is_cancelled_while_it_waits():
    job = queue.enqueue(tasks.flaky, 1, retry=Retry(max=1, interval=2))
    until(lambda: job.id in queue.scheduled_job_registry.get_job_ids(), "a schedule")
    job.refresh()
    began = job.started_at
    job.cancel()
    time.sleep(4)
    job.refresh()
    return {"status": status(job), "ran_again": job.started_at != began, "registries": registries(job)}


# Waiting for others and for a time


@check
def a_dependent():
    parent = queue.enqueue(tasks.sleep, 0.5)
    child = other.enqueue(tasks.add, 1, 2, depends_on=parent)
    seen = {"before": [status(child), registries(child)]}
    seen["end"] = ended(child)
    child.refresh()
    seen["value"] = child.return_value()
    seen["order"] = bool(parent.get_status() == "finished" and child.started_at >= Job.fetch(parent.id, connection).ended_at)
    seen["dependents"] = connection.exists(parent.dependents_key)
    return seen


@check
def several_parents():
    a, b = queue.enqueue(tasks.sleep, 0.3), other.enqueue(tasks.sleep, 0.6)
    child = queue.enqueue(tasks.add, 1, 2, depends_on=[a, b])
    until(lambda: status(a) == "finished", "the first")
    early = status(child)
    return {"after_the_first": early, "end": ended(child)}


@check
def a_parent_that_fails():
    parent = queue.enqueue(tasks.fail, "ValueError", "x", depends_on=queue.enqueue(tasks.sleep, 0.3))
    strict = queue.enqueue(tasks.add, 1, 2, depends_on=parent)
    mild = queue.enqueue(tasks.add, 1, 2, depends_on=Dependency([parent], allow_failure=True))
    return {"mild": ended(mild), "parent": status(parent), "strict": status(strict), "listed": registries(strict)}


@check
def a_chain_with_nothing_kept():
    parent = queue.enqueue(tasks.sleep, 0.3, result_ttl=0)
    child = queue.enqueue(tasks.add, 1, 2, depends_on=parent)
    return {"end": ended(child), "parent": Job.exists(parent.id, connection)}


@check
def a_dependent_in_front():
    parent = queue.enqueue(tasks.sleep, 0.3)
    child = queue.enqueue(tasks.add, 1, 2, depends_on=Dependency([parent], enqueue_at_front=True))
    return ended(child)


@check
def the_dependents_of_a_stopped_job():
    parent = queue.enqueue(tasks.sleep, 60)
    child = queue.enqueue(tasks.add, 1, 2, depends_on=parent)
    until(lambda: status(parent) == "started", "a start")
    time.sleep(0.2)
    send_stop_job_command(connection, parent.id)
    ended(parent)
    time.sleep(1)
    return {"parent": status(parent), "child": status(child)}


@check
def enqueue_in():
    job = queue.enqueue_in(timedelta(seconds=2), tasks.add, 1, 2)
    seen = {"before": [status(job), registries(job)], "length": len(queue)}
    seen["end"] = ended(job)
    job.refresh()
    seen["registries"] = registries(job)
    seen["enqueued_at"] = bool(job.enqueued_at)
    return seen


@check
def enqueue_at():
    at = datetime.now(timezone.utc) + timedelta(seconds=2)
    job = queue.enqueue_at(at, tasks.add, 1, 2)
    seen = {"before": status(job), "time": near(queue.scheduled_job_registry.get_scheduled_time(job).timestamp(), at.timestamp(), 1)}
    seen["end"] = ended(job)
    job.refresh()
    seen["early"] = job.started_at < at - timedelta(seconds=1)
    late = queue.enqueue_at(datetime.now(timezone.utc) - timedelta(hours=1), tasks.add, 1, 2)
    return {**seen, "of_the_past": ended(late)}


@check
def a_scheduled_job_that_is_cancelled():
    job = queue.enqueue_in(timedelta(seconds=2), tasks.add, 1, 2)
    job.cancel()
    time.sleep(3.5)
    return {"status": status(job), "registries": registries(job)}


@check
def the_scheduler_is_known():
    return {"pid": isinstance(until(lambda: queue.scheduler_pid, "a scheduler"), int)}


# What clients do to jobs


@check
def cancel_while_it_waits():
    pause()
    job = queue.enqueue(tasks.add, 1, 1)
    job.cancel()
    resume(connection)
    time.sleep(1.5)
    return {"status": status(job), "registries": registries(job), "length": len(queue)}


@check
def cancel_and_let_the_dependents_go():
    pause()
    parent = queue.enqueue(tasks.add, 1, 1)
    child = queue.enqueue(tasks.add, 1, 2, depends_on=parent)
    parent.cancel(enqueue_dependents=True)
    resume(connection)
    return {"child": ended(child), "parent": status(parent), "registries": registries(parent)}


@check
def cancel_of_a_dependent():
    parent = queue.enqueue(tasks.sleep, 0.5)
    child = queue.enqueue(tasks.add, 1, 2, depends_on=parent)
    child.cancel()
    ended(parent)
    time.sleep(0.5)
    return {"child": status(child), "registries": registries(child)}


@check
def delete_while_it_waits():
    pause()
    job = queue.enqueue(tasks.add, 1, 1)
    job.delete()
    resume(connection)
    time.sleep(1)
    return {"exists": Job.exists(job.id, connection), "length": len(queue), "registries": registries(job)}


@check
def cancel_while_it_runs():
    job = queue.enqueue(tasks.sleep, 1)
    until(lambda: status(job) == "started", "a start")
    job.refresh()
    job.cancel()
    time.sleep(2.5)
    return {"status": status(job), "registries": registries(job)}


@check
def delete_while_it_runs():
    job = queue.enqueue(tasks.sleep, 1)
    until(lambda: status(job) == "started", "a start")
    job.refresh()
    job.delete()
    time.sleep(2.5)
    return {"exists": Job.exists(job.id, connection), "started": registries(job)}


@check
def stop_job():
    job = queue.enqueue(tasks.sleep, 60)
    until(lambda: status(job) == "started", "a start")
    time.sleep(0.2)
    send_stop_job_command(connection, job.id)
    ended(job)
    return {
        "status": status(job), "type": job.latest_result().type.name, "words": last_line(job),
        "registries": registries(job), "stopped": job.is_stopped,
    }


@check_newest
def stop_an_execution():
    job = queue.enqueue(tasks.sleep, 60)
    until(lambda: status(job) == "started" and job.get_executions(), "a start")
    time.sleep(0.2)
    execution = job.get_executions()[0]
    seen = {"job": execution.job.id == job.id, "worker": execution.worker_name == Job.fetch(job.id, connection).worker_name}
    worker = Worker.find_by_key(f"rq:worker:{execution.worker_name}", connection=connection)
    seen["of_the_worker"] = [worker.current_execution_count, [e.job_id == job.id for e in worker.get_current_executions()]]
    send_stop_execution_command(connection, job.id, execution.id)
    seen["end"] = ended(job)
    until(lambda: Worker.find_by_key(worker.key, connection=connection).get_state() == "idle", "an idle worker")
    return {**seen, "then": worker.current_execution_count}


@check
def stop_job_of_a_job_that_does_not_run():
    job = queue.enqueue(tasks.add, 1, 1)
    ended(job)
    waits = queue.enqueue_in(timedelta(hours=1), tasks.add, 1, 1)
    try:
        send_stop_job_command(connection, waits.id)
    except InvalidJobOperation as error:
        return str(error)
    finally:
        waits.cancel()


@check
def kill_horse():
    job = queue.enqueue(tasks.sleep, 60)
    until(lambda: status(job) == "started", "a start")
    time.sleep(0.2)
    job.refresh()
    send_kill_horse_command(connection, job.worker_name)
    ended(job)
    return {"status": status(job), "words": last_line(job), "registries": registries(job)}


@check
def requeue():
    job = queue.enqueue(tasks.flaky, 1)
    ended(job)
    before = registries(job)
    job.requeue()
    until(lambda: status(job) == "finished", "a success")
    return {"before": before, "after": registries(job), "value": job.return_value(refresh=True), "results": len(job.results()), "ttl": near(connection.ttl(job.key), 500)}


@check
def requeue_at_front():
    failed = queue.enqueue(tasks.flaky, 1)
    ended(failed)
    pause()
    waits = queue.enqueue(tasks.add, 1, 1)
    failed.requeue(at_front=True)
    seen = {"order": queue.job_ids == [failed.id, waits.id], "status": status(failed), "registries": registries(failed)}
    resume(connection)
    ended(waits)
    until(lambda: status(failed) == "finished", "a success")
    return seen


@check
def callbacks():
    good = queue.enqueue(tasks.add, 1, 2, on_success=Callback(tasks.on_end))
    bad = queue.enqueue(tasks.fail, "ValueError", "x", on_failure=Callback(tasks.on_end))
    stopped = queue.enqueue(tasks.sleep, 60, on_stopped=Callback(tasks.on_end))
    until(lambda: status(stopped) == "started", "a start")
    time.sleep(0.2)
    send_stop_job_command(connection, stopped.id)
    names = {good.id: "success", bad.id: "failure", stopped.id: "stopped"}
    seen = lambda: {names.get(i.decode()) for i in connection.lrange("conformance:callbacks", 0, -1)}
    until(lambda: len(seen()) == 3, "three callbacks")
    return {"called": sorted(seen()), "statuses": [ended(job) for job in (good, bad, stopped)]}


@check
def a_callback_that_nobody_knows():
    job = queue.enqueue(tasks.add, 1, 2, on_success=Callback("conformance_tasks.no_such_function"))
    ended(job)
    return {"status": status(job)}


@check
def a_group():
    group = Group.create(connection=connection)
    jobs = group.enqueue_many(queue, [Queue.prepare_data(tasks.add, args=(n, n)) for n in range(3)])
    for job in jobs:
        ended(job)
    return {"values": sorted(job.return_value() for job in group.get_jobs()), "listed": group.name in [g.name for g in Group.all(connection)]}


# What producers after RQ 2.0 ask for


@check_newest
def unique():
    def again(**more):
        try:
            return status(queue.enqueue(tasks.add, 1, 1, job_id=id, unique=True, **more))
        except DuplicateJobError as error:
            return str(error).replace(id, "ID")

    id = str(uuid.uuid4())
    pause()
    seen = {"first": again(result_ttl=1), "while_it_waits": again(), "length": len(queue)}
    resume(connection)
    ended(Job.fetch(id, connection))
    seen["while_it_is_kept"] = again()
    until(lambda: not Job.exists(id, connection), "the end of its result")
    seen["after"] = again()
    return {**seen, "end": ended(Job.fetch(id, connection)), "value": Job.fetch(id, connection).return_value()}


@check_newest
def a_unique_job_at_a_time():
    at, id = datetime.now(timezone.utc) + timedelta(seconds=2), str(uuid.uuid4())
    job = queue.enqueue_at(at, tasks.add, 1, 1, job_id=id, unique=True)
    try:
        second = status(queue.enqueue_at(at, tasks.add, 1, 1, job_id=id, unique=True))
    except DuplicateJobError:
        second = "refused"
    return {"second": second, "end": ended(job), "results": len(job.results())}


@check_newest
def a_repeated_job():
    job = queue.enqueue(tasks.add, 1, 2, repeat=Repeat(times=3, interval=[0, 1, 2]))
    begun = time.time()
    until(lambda: len(job.results()) == 4, "four runs")
    took = near(time.time() - begun, 3, 2.5)
    until(lambda: status(job) == "finished", "the end")
    job.refresh()
    return {"took": took, "left": job.repeats_left, "intervals": job.repeat_intervals, "registries": registries(job), "ttl": near(connection.ttl(job.key), 500)}


@check_newest
def a_repeated_job_between_two_runs():
    job = queue.enqueue(tasks.add, 1, 2, repeat=Repeat(times=1, interval=60))
    until(lambda: status(job) == "scheduled", "a schedule")
    job.refresh()
    seen = {"left": job.repeats_left, "results": len(job.results()), "value": job.return_value(), "registries": registries(job), "ttl": connection.ttl(job.key)}
    job.cancel()
    return {**seen, "then": [status(job), registries(job)]}


@check_newest
def a_repeated_job_that_fails():
    job = queue.enqueue(tasks.fail, "ValueError", "x", repeat=Repeat(times=2))
    ended(job)
    time.sleep(0.5)
    job.refresh()
    return {"status": status(job), "left": job.repeats_left, "results": len(job.results())}


numbers = itertools.count()


def limited(*arguments, key, concurrency=1, **more):
    # RQ counts whole seconds, and of a second the ids say who is first.
    id = f"{key}-{next(numbers):03}"
    return queue.enqueue(*arguments, rate_limit=RateLimit(key, concurrency), job_id=id, **more)


def places(key):
    registry = RateLimitRegistry(key, connection)
    return [registry.get_allowed_job_count(), registry.get_rate_limited_job_count()]


@check_newest
def a_rate_limit():
    jobs = [limited(tasks.sleep, 0.4, key="r") for _ in range(4)]
    first = [status(jobs[0]) in ("queued", "started", "finished"), *[status(job) for job in jobs[2:]]]
    for job in jobs:
        ended(job)
        job.refresh()
    spans = sorted((job.started_at, job.ended_at) for job in jobs)
    until(lambda: places("r") == [0, 0], "free places")
    return {
        "first": first, "ends": [status(job) for job in jobs], "in_order": [job.id for job in jobs] == [job.id for job in sorted(jobs, key=lambda job: job.started_at)],
        "one_after_the_other": all(one[1] <= other[0] + timedelta(milliseconds=5) for one, other in zip(spans, spans[1:])),
        "known": [registry.key for registry in RateLimitRegistry.all(connection) if registry.key == "r"],
    }


@check_newest
def a_rate_limit_of_two():
    jobs = [limited(tasks.sleep, 0.5, key="two", concurrency=2) for _ in range(3)]
    seen = [status(jobs[2]), places("two")]
    for job in jobs:
        ended(job)
        job.refresh()
    return {"third": seen, "two_at_once": jobs[1].started_at < jobs[0].ended_at, "then": jobs[2].started_at >= min(job.ended_at for job in jobs[:2])}


@check_newest
def a_rate_limit_of_jobs_that_fail():
    jobs = [limited(tasks.fail, "ValueError", "x", key="f"), limited("conformance_tasks.no_such_function", key="f"), limited(tasks.add, 1, 2, key="f")]
    seen = [ended(job) for job in jobs]
    until(lambda: places("f") == [0, 0], "free places")
    return seen


@check_newest
def a_rate_limit_of_jobs_that_are_retried():
    jobs = [limited(tasks.flaky, 1, key="again", retry=Retry(max=1)), limited(tasks.add, 1, 2, key="again")]
    seen = [ended(job) for job in jobs]
    for job in jobs:
        job.refresh()
    until(lambda: places("again") == [0, 0], "free places")
    return {"ends": seen, "value": jobs[0].return_value(), "order": jobs[0].ended_at <= jobs[1].started_at + timedelta(milliseconds=5)}


@check_newest
def a_rate_limit_and_a_retry_that_waits():
    jobs = [limited(tasks.flaky, 1, key="later", retry=Retry(max=1, interval=2)), limited(tasks.add, 1, 2, key="later")]
    seen = [ended(job) for job in jobs]
    for job in jobs:
        job.refresh()
    until(lambda: places("later") == [0, 0], "free places")
    return {"ends": seen, "value": jobs[0].return_value(), "the_other_goes_first": jobs[1].ended_at < jobs[0].ended_at}


@check_newest
def a_rate_limit_and_clients_that_stop_cancel_and_delete():
    jobs = [limited(tasks.sleep, 30, key="c"), limited(tasks.add, 1, 1, key="c"), limited(tasks.sleep, 0.5, key="c"), limited(tasks.sleep, 0.5, key="c"), limited(tasks.add, 1, 2, key="c")]
    jobs[1].cancel()
    until(lambda: status(jobs[0]) == "started", "a start")
    time.sleep(0.2)
    send_stop_job_command(connection, jobs[0].id)
    seen = [ended(jobs[0]), status(jobs[1])]
    until(lambda: status(jobs[2]) == "started", "a start")
    jobs[2].cancel()
    seen.append(places("c"))
    until(lambda: status(jobs[3]) == "started", "a start")
    jobs[3].delete()
    seen.append(places("c"))
    seen.append(ended(jobs[4]))
    until(lambda: places("c") == [0, 0], "free places")
    return seen


@check_newest
def a_rate_limit_of_dependents_and_scheduled_jobs():
    parent = queue.enqueue(tasks.sleep, 0.3)
    holder = limited(tasks.sleep, 2.5, key="d")
    child = limited(tasks.add, 1, 1, key="d", depends_on=parent)
    late = queue.enqueue_in(timedelta(seconds=1), tasks.add, 1, 2, job_id="d-999", rate_limit=RateLimit("d", 1))
    seen = [status(child), status(late)]
    until(lambda: status(child) == "rate_limited" and status(late) == "rate_limited", "both to wait for a place")
    seen.append(places("d"))
    seen += [ended(child), ended(late)]
    for job in (holder, child, late):
        job.refresh()
    until(lambda: places("d") == [0, 0], "free places")
    return [*seen, holder.ended_at <= child.started_at + timedelta(milliseconds=5), child.ended_at <= late.started_at + timedelta(milliseconds=5)]


@check_newest
def a_rate_limited_job_that_is_requeued():
    job = limited(tasks.flaky, 1, key="q")
    ended(job)
    holder = limited(tasks.sleep, 0.7, key="q")
    job.requeue()
    seen = [status(job), places("q"), registries(job)]
    until(lambda: status(job) == "finished", "a success")
    holder.refresh(), job.refresh()
    return [*seen, holder.ended_at <= job.started_at + timedelta(milliseconds=5)]


@check_newest
def a_rate_limited_job_that_is_repeated():
    job = limited(tasks.add, 1, 2, key="p", repeat=Repeat(times=2, interval=[0, 1]))
    until(lambda: len(job.results()) == 3 and status(job) == "finished", "three runs")
    until(lambda: places("p") == [0, 0], "free places")
    return status(job)


class Receiver(BaseHTTPRequestHandler):
    """Where webhooks come in. `/500` is answered so."""

    seen = []

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.seen.append({"method": self.command, "path": self.path, "headers": self.headers, "body": body})
        self.send_response(500 if self.path.startswith("/500") else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *rest):
        pass


receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=receiver.serve_forever, daemon=True).start()


def webhook(path, job_status, **more):
    return Webhook(f"http://127.0.0.1:{receiver.server_port}/{path}", job_status, **more)


def received(path, count):
    """What came to a path: so much, and no more."""
    found = lambda: [seen for seen in Receiver.seen if seen["path"] == f"/{path}"]
    if count:
        until(lambda: len(found()) >= count, f"{count} requests to {path}")
    time.sleep(0.5)
    return found()


@check_newest
def webhooks_of_a_job_that_ends_well():
    job = queue.enqueue(tasks.add, 1, 2, webhooks=[
        webhook("well", "finished"), webhook("well/post", "finished", method="POST", headers={"X-Own": "{{ job.id }}"}),
        webhook("well/other", "finished", method="POST", headers={"Content-type": "text/plain", "Authorization": "Bearer x"}),
        webhook("well/failed", "failed"),
    ])
    seen = {"end": ended(job)}
    [get], [post], [other] = received("well", 1), received("well/post", 1), received("well/other", 1)
    job.refresh()
    body = json.loads(post["body"])
    seen["get"] = [get["method"], get["body"], get["headers"].get("Content-Type")]
    seen["post"] = [post["method"], post["headers"].get_all("Content-Type"), post["headers"].get("X-Own"), list(body), post["body"] == json.dumps(body)]
    seen["words"] = [body["job_id"] == job.id, body["func_name"], body["status"], body["enqueued_at"] == job.enqueued_at.isoformat()]
    seen["ended_at"] = near(datetime.fromisoformat(body["ended_at"]).timestamp(), job.ended_at.timestamp(), 1)
    seen["other"] = [other["headers"].get_all("Content-Type"), other["headers"].get("Authorization")]
    return {**seen, "failed": len(received("well/failed", 0)), "value": job.return_value()}


@check_newest
def webhooks_of_a_job_that_fails():
    job = queue.enqueue(tasks.fail, "ValueError", "no such thing", webhooks=[webhook("bad", "failed", method="POST"), webhook("bad/get", "failed"), webhook("bad/finished", "finished")])
    seen = {"end": ended(job)}
    [post], [get] = received("bad", 1), received("bad/get", 1)
    body = json.loads(post["body"])
    job.refresh()
    return {
        **seen, "keys": list(body), "status": body["status"], "last_line": body["exc_info"].strip().splitlines()[-1],
        "as_the_result": body["exc_info"] == job.latest_result().exc_string, "get": [get["method"], get["body"]], "finished": len(received("bad/finished", 0)),
    }


@check_newest
def webhooks_of_an_unknown_function():
    job = queue.enqueue("conformance_tasks.no_such_function", webhooks=[webhook("unknown", "failed", method="POST")])
    seen = ended(job)
    [post] = received("unknown", 1)
    return [seen, json.loads(post["body"])["func_name"], json.loads(post["body"])["status"]]


@check_newest
def webhooks_of_a_job_that_is_retried():
    job = queue.enqueue(tasks.flaky, 1, retry=Retry(max=1), webhooks=[webhook("retried", "finished"), webhook("retried/failed", "failed")])
    return [ended(job), len(received("retried", 1)), len(received("retried/failed", 0))]


@check_newest
def webhooks_of_a_job_that_is_repeated():
    job = queue.enqueue(tasks.add, 1, 2, repeat=Repeat(times=2), webhooks=[webhook("repeated", "finished")])
    return [len(received("repeated", 3)), ended(job)]


@check_newest
def webhooks_of_a_job_of_which_nothing_is_kept():
    job = queue.enqueue(tasks.add, 1, 2, result_ttl=0, webhooks=[webhook("nothing", "finished", method="POST")])
    [post] = received("nothing", 1)
    return [json.loads(post["body"])["job_id"] == job.id, Job.exists(job.id, connection)]


@check_newest
def webhooks_of_a_job_that_is_stopped():
    job = queue.enqueue(tasks.sleep, 60, webhooks=[webhook("stopped", "failed"), webhook("stopped", "finished")])
    until(lambda: status(job) == "started", "a start")
    time.sleep(0.2)
    send_stop_job_command(connection, job.id)
    return [ended(job), len(received("stopped", 0))]


@check_newest
def a_webhook_that_is_refused():
    job = queue.enqueue(tasks.add, 1, 2, webhooks=[webhook("500/refused", "finished"), webhook("after", "finished"), Webhook("http://127.0.0.1:1/", "finished")])
    return [ended(job), job.return_value(), len(received("500/refused", 1)), len(received("after", 1)), status(job)]


@check
def waiting_for_a_result():
    job = queue.enqueue(tasks.sleep, 0.3)
    result = job.latest_result(timeout=DEADLINE)
    return {"type": result.type.name, "status": status(job)}


@check
def many_jobs():
    jobs = queue.enqueue_many([Queue.prepare_data(tasks.add, args=(n, 1)) for n in range(100)])
    for job in jobs:
        ended(job)
    return {"statuses": sorted({status(job) for job in jobs}), "sum": sum(job.return_value() for job in jobs), "started": queue.started_job_registry.count}


# Workers, and RQ's command line


@check
def workers():
    found = Worker.all(connection=connection)
    until(lambda: all(w.get_state() == "idle" for w in Worker.all(connection=connection)), "idle workers")
    found = Worker.all(connection=connection)
    data = [connection.hgetall(w.key) for w in found]
    return {
        "count": len(found), "by_queue": Worker.count(queue=queue), "queues": sorted({q for w in found for q in w.queue_names()}),
        # The one is there now and then, the other before RQ 3.0.
        "fields": sorted({k.decode() for d in data for k in d} - {"shutdown_requested_date", "current_job_working_time"}),
        "working_times": all(getattr(w, "current_job_working_time", 0) >= 0 for w in found), "births": all(w.birth_date for w in found),
        "heartbeats": all(w.last_heartbeat for w in found), "pids": all(isinstance(w.pid, int) for w in found),
        "hostnames": all(w.hostname for w in found), "successes": sum(w.successful_job_count for w in found) > 0,
        "failures": sum(w.failed_job_count for w in found) > 0, "time": sum(w.total_working_time for w in found) > 0,
        "ttl": all(0 < connection.ttl(w.key) for w in found), "addresses": all(":" in w.ip_address for w in found),
    }


def rq(*arguments):
    done = subprocess.run([options.rq, *arguments, "--url", options.redis], capture_output=True, text=True, timeout=60)
    return done.stdout


@check
def rq_info():
    for key in connection.scan_iter("rq:failed:*"):
        connection.delete(key)
    queue.enqueue(tasks.fail, "ValueError", "x")
    until(lambda: queue.failed_job_registry.count == 1, "a failure")
    queues = [line for line in rq("info", "--raw", "--only-queues").splitlines() if line.startswith("queue ")]
    workers = rq("info", "--raw", "--only-workers").splitlines()
    queues = sorted(re.sub(r"\d+ finished", "some finished", line) for line in queues)
    return {"queues": queues, "workers": [len(workers), *sorted({w.split()[-1] for w in workers}), *sorted({s for w in workers for s in ("idle", "busy") if s in w})]}


@check
def rq_requeue():
    job = queue.enqueue(tasks.flaky, 1)
    ended(job)
    rq("requeue", "--queue", "conf", job.id)
    until(lambda: status(job) == "finished", "a success")
    return registries(job)


@check
def rq_requeue_all():
    jobs = [queue.enqueue(tasks.flaky, 1) for _ in range(3)]
    for job in jobs:
        ended(job)
    text = rq("requeue", "--queue", "conf", "--all")
    for job in jobs:
        until(lambda: status(job) == "finished", "a success")
    return {"unable": "Unable" in text, "failed": [i for i in queue.failed_job_registry.get_job_ids() if i in {job.id for job in jobs}]}


@check
def rq_suspend_for_a_time():
    rq("suspend", "--duration", "4")
    until(lambda: all(w.get_state() == "suspended" or queue.enqueue(tasks.nothing) is None or time.sleep(0.3) for w in Worker.all(connection=connection)), "suspended workers", 3.5)
    job = queue.enqueue(tasks.add, 1, 1)
    seen = {"waits": status(job)}
    return {**seen, "then": ended(job)}


@check
def rq_empty():
    rq("suspend")
    pause()
    for _ in range(3):
        queue.enqueue(tasks.add, 1, 1)
    text = rq("empty", "conf")
    rq("resume")
    return {"length": len(queue), "says": "3 jobs removed" in text}


# The last one: the workers are gone then.


@check
def shutdown():
    job = queue.enqueue(tasks.sleep, 1.5)
    until(lambda: status(job) == "started", "a start")
    names = [w.name for w in Worker.all(connection=connection)]
    for name in names:
        send_shutdown_command(connection, name)
    until(lambda: not Worker.all(connection=connection), "no workers")
    until(lambda: status(job) == "finished", "the end of what ran")
    waits = queue.enqueue(tasks.add, 1, 1)
    time.sleep(1.5)
    return {"ran": status(job), "waits": status(waits), "death": all(connection.hexists(f"rq:worker:{n}", "death") for n in names)}


for function in checks:
    if options.only and options.only not in function.__name__:
        continue
    name = function.__name__.replace("_", " ")
    try:
        seen = function()
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
    finally:
        connection.delete("rq:suspended")
    print(json.dumps({"row": name, "seen": seen}, sort_keys=True, default=str), flush=True)
