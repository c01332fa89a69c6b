"""Every row of the table, in its order."""

from . import analytics, delayed, depth, drain, enqueue, idle, latency, limits, long, start

ALL = (
    drain.NATIVE,
    limits.ROW,
    drain.ON_CELERY,
    drain.ON_RQ,
    enqueue.ONE,
    enqueue.MANY,
    latency.ROW,
    delayed.ROW,
    idle.ROW,
    start.ROW,
    analytics.ROW,
    depth.ROW,
    long.ROW,
)
