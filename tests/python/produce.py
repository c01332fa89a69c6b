#!/usr/bin/env python3
"""Enqueues work with the real Celery and RQ packages, as an unchanged application does, and reports what it sees.

    produce.py --redis URL celery send_welcome_email '{"user_email": "a@b.bs", …}' --get 20
    produce.py --redis URL rq notifications send_push_notification_job '{"user_id": 1, …}' --wait 20
    produce.py --redis URL app analytics track_user_event_job '[1, "page_view"]' --wait 20
    produce.py --redis URL all --video clip.mp4 --wait 60
    produce.py --redis URL health

`celery` calls `.delay`, `rq` enqueues over a connection that reads bytes, `app` through the application's own
`enqueue_job`, `all` sends every task of the application once. Arguments are JSON: an object holds keyword arguments, a
list positional ones, and both may be given. A task name with a dot is sent as it is, without the checks that Celery and
RQ make for a function they can import: that is how an unknown task or a wrong argument gets onto the wire. With
`--count N` the job is sent N times, `{n}` in any string of its arguments standing for 0…N-1.

One JSON line per job on standard output, in the order of enqueueing:
    celery    {"wire", "task", "id", "state", "result" | "error": {"type", "message"}}
    rq, app   {"wire", "task", "id", "status", "return_value", "exc_info"}
Without `--get` or `--wait` nothing is waited for: the line says what the producer sees at once. A job that is not done
in time is reported in the state it is in. The exit code speaks of this program, never of the jobs.
"""

import argparse
import functools
import json
import os
import time


def main():
    options = parse_options()
    # The application reads its Redis from the environment when it is imported, so it is imported after this line.
    os.environ["REDIS_URL"] = options.redis
    if options.command == "health":
        from backend_app.core.rq_app import check_rq_health

        print_line(check_rq_health())
        return
    # Everything is enqueued before anything is waited for, and the clock of --get and --wait starts after that.
    sent = list(enqueue(options))
    deadline = time.monotonic() + options.wait if options.wait else None
    for job in sent:
        print_line(job.report(deadline))


def enqueue(options):
    if options.command == "all":
        yield from enqueue_whole_workload(options.video)
        return
    for n in range(options.count):
        args, kwargs = arguments(options.arguments, n)
        if options.command == "celery":
            yield CeleryJob(options.task, args, kwargs, options.queue)
        elif options.command == "rq":
            yield RqJob.enqueue(options.queue, options.task, args, kwargs, rq_options(options))
        else:
            yield RqJob.through_the_app(options.queue, options.task, args, kwargs)


def enqueue_whole_workload(video):
    for task, args in {
        "send_email_task": ["ann@example.bs", "Hello", "<p>Hello Ann.</p>"],
        "send_welcome_email": ["ann@example.bs", "Ann", "ann1"],
        "send_job_application_email": ["boss@example.bs", "Bo", "Diver", "Ann", "ann@example.bs", 7],
        "send_message_notification_email": ["ann@example.bs", "Ann", "Cy", "See you at the harbour."],
        "send_password_reset_email": ["ann@example.bs", "Ann", "s3cret-token"],
        "cleanup_old_notifications": [],
    }.items():
        yield CeleryJob(task, args, {}, None)
    for queue, tasks in {
        "notifications": {
            "send_push_notification_job": [1, "Welcome", "Glad you are here.", "welcome"],
            "send_new_follower_notification_job": [2, "Bo", 1],
            "send_new_like_notification_job": [2, "Bo", 1, 5],
            "send_new_comment_notification_job": [2, "Bo", 1, 5, "What a sunset."],
            "send_new_message_notification_job": [2, "Bo", 1, "Are you there?"],
        },
        "analytics": {
            "track_user_event_job": [1, "page_view", {"page": "/jobs"}],
            "aggregate_user_stats_job": [1],
        },
        "video_processing": {
            "process_video_job": [7, video, 1],
            "generate_video_thumbnail_job": [7, video],
        },
    }.items():
        for task, args in tasks.items():
            yield RqJob.through_the_app(queue, task, args, {})


class CeleryJob:
    """One Celery message, and the AsyncResult the producer holds."""

    def __init__(self, task, args, kwargs, queue):
        from backend_app.core import celery_tasks

        self.task = task
        route = {"queue": queue} if queue else {}
        if "." in task:
            # A name the application does not import, sent by name as another service would.
            self.result = celery_tasks.celery_app.send_task(task, args=args, kwargs=kwargs, **route)
        elif queue:
            self.result = getattr(celery_tasks, task).apply_async(args, kwargs, **route)
        else:
            self.result = getattr(celery_tasks, task).delay(*args, **kwargs)

    def report(self, deadline):
        line = {"wire": "celery", "task": self.task, "id": self.result.id}
        if deadline is not None:
            try:
                # Past the deadline there is still a moment to collect a result that is already there.
                line["result"] = self.result.get(timeout=max(deadline - time.monotonic(), 0.1))
            except Exception as error:  # Whatever class the producer gets is what is to be reported.
                line["error"] = {"type": type(error).__name__, "message": str(error)}
        line["state"] = self.result.state
        return line


class RqJob:
    """One RQ job, its status watched over the connection that enqueued it, its result read as bytes."""

    ENDED = ("finished", "failed", "stopped", "canceled", "gone")

    def __init__(self, task, job):
        self.task = task
        self.job = job

    @classmethod
    def enqueue(cls, queue, task, args, kwargs, options):
        from rq import Queue

        queue = Queue(queue, connection=bytes_connection())
        return cls(task, queue.enqueue(function(task), *args, **kwargs, **options))

    @classmethod
    def through_the_app(cls, queue, task, args, kwargs):
        from backend_app.core.rq_app import enqueue_job

        return cls(task, enqueue_job(queue, function(task), *args, **kwargs))

    def report(self, deadline):
        status = self.status()
        while status not in self.ENDED and time.monotonic() < (deadline or 0):
            time.sleep(0.02)
            status = self.status()
        line = {"wire": "rq", "task": self.task, "id": self.job.id, "status": status}
        line["return_value"], line["exc_info"] = self.outcome()
        return line

    def status(self):
        """Works over either connection. A job that is gone, as one with a result_ttl of 0, is reported as `gone`."""
        from rq.exceptions import InvalidJobOperation

        try:
            return self.job.get_status().value
        except InvalidJobOperation:
            return "gone"

    def outcome(self):
        from rq.exceptions import NoSuchJobError
        from rq.job import Job

        try:
            job = Job.fetch(self.job.id, connection=bytes_connection())
        except NoSuchJobError:
            return None, None
        latest = job.latest_result()
        return (latest.return_value, latest.exc_string) if latest else (None, None)


def function(task):
    """The application's function of that name; a dotted name is enqueued as the text it is."""
    from backend_app.core import rq_tasks

    return task if "." in task else getattr(rq_tasks, task)


@functools.cache
def bytes_connection():
    """A connection of the usual kind. The application's own decodes, and so cannot read a job back, see rq_app."""
    from redis import Redis

    return Redis.from_url(os.environ["REDIS_URL"])


def rq_options(options):
    given = {
        "job_timeout": options.timeout,
        "result_ttl": options.result_ttl,
        "failure_ttl": options.failure_ttl,
        "job_id": options.job_id,
    }
    return {name: value for name, value in given.items() if value is not None}


def arguments(texts, n):
    """The JSON values of the command line as positional and keyword arguments of the n-th job."""
    args, kwargs = [], {}
    for text in texts:
        value = fill_in(json.loads(text), str(n))
        if isinstance(value, dict):
            kwargs.update(value)
        elif isinstance(value, list):
            args.extend(value)
        else:
            raise SystemExit(f"arguments are a JSON object (keywords) or a JSON list (positions), not {text}")
    return args, kwargs


def fill_in(value, n):
    if isinstance(value, str):
        return value.replace("{n}", n)
    if isinstance(value, list):
        return [fill_in(item, n) for item in value]
    if isinstance(value, dict):
        return {key: fill_in(item, n) for key, item in value.items()}
    return value


def print_line(value):
    # `repr` for what JSON cannot say (a result may be any Python object); one flush a line, so a reader can follow.
    print(json.dumps(value, default=repr), flush=True)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--redis", required=True, metavar="URL")
    commands = parser.add_subparsers(dest="command", required=True)

    celery = commands.add_parser("celery")
    celery.add_argument("task", help="a task of the application, or a dotted name to send by name")
    celery.add_argument("arguments", nargs="*", metavar="JSON")
    celery.add_argument("--get", dest="wait", type=float, metavar="SECONDS")
    celery.add_argument("--queue", help="instead of the application's own route")
    celery.add_argument("--count", type=int, default=1)

    for name in ("rq", "app"):
        rq = commands.add_parser(name)
        rq.add_argument("queue")
        rq.add_argument("task", help="a job of the application, or a dotted name to send as text")
        rq.add_argument("arguments", nargs="*", metavar="JSON")
        rq.add_argument("--wait", type=float, metavar="SECONDS")
        rq.add_argument("--count", type=int, default=1)
        if name == "rq":
            rq.add_argument("--timeout", help="job_timeout")
            rq.add_argument("--result-ttl", type=int)
            rq.add_argument("--failure-ttl", type=int)
            rq.add_argument("--job-id")

    whole = commands.add_parser("all")
    whole.add_argument("--video", required=True, help="the path that the two video jobs name")
    whole.add_argument("--wait", type=float, metavar="SECONDS")

    commands.add_parser("health")
    return parser.parse_args()


if __name__ == "__main__":
    main()
