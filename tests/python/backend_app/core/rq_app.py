"""RQ as the web application uses it: a connection with `decode_responses=True`, three queues, and its `enqueue_job`.

Two habits of the application are kept because jobsd has to live with them: `enqueue_job` passes `timeout=`, which RQ 2.0
does not take for itself and leaves among the function's keyword arguments; and over a decoding connection `Job.fetch`
cannot read a job back, because the `data` of a job is compressed bytes.
"""

import os

from redis import Redis
from rq import Queue
from rq.registry import FailedJobRegistry, StartedJobRegistry

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

redis_conn = Redis.from_url(REDIS_URL, decode_responses=True)

# Seconds, by queue.
QUEUE_OPTIONS = {
    "notifications": {"timeout": 300, "result_ttl": 600, "failure_ttl": 86400},
    "analytics": {"timeout": 600, "result_ttl": 3600, "failure_ttl": 86400},
    "video_processing": {"timeout": 1800, "result_ttl": 7200, "failure_ttl": 172800},
}

queues = {name: Queue(name, connection=redis_conn) for name in QUEUE_OPTIONS}
notification_queue = queues["notifications"]
analytics_queue = queues["analytics"]
video_queue = queues["video_processing"]


def enqueue_job(queue_name, func, *args, **kwargs):
    return queues[queue_name].enqueue(func, *args, **QUEUE_OPTIONS[queue_name], **kwargs)


def check_rq_health():
    redis_conn.ping()
    return {
        "status": "healthy",
        "redis": "connected",
        "queues": {
            name: {
                "count": len(queue),
                "failed_count": FailedJobRegistry(queue=queue).count,
                "started_count": StartedJobRegistry(queue=queue).count,
            }
            for name, queue in queues.items()
        },
    }
