"""What a stretch of work cost: CPU of the worker's processes and of Redis, commands, memory."""

import os
import time
from dataclasses import dataclass

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Reading:
    """All counters at one moment. What this program asked the server's own connection for is left out."""

    at: float
    worker: float
    redis: float
    commands: int

    @classmethod
    def take(cls, pid, server):
        """`pid` is the worker's, or None before there is one."""
        redis = server.redis
        cpu = redis.info("cpu")
        # INFO does not count itself yet.
        ours = redis.calls
        executed = commands(redis.info("commandstats")) - ours
        return cls(time.monotonic(), tree_cpu(pid) if pid else 0.0, redis_cpu(cpu), executed)


@dataclass(frozen=True)
class Cost:
    """What lies between two readings, for each of `jobs` jobs."""

    seconds: float
    rate: float
    worker_us: float
    redis_us: float
    commands: float

    @classmethod
    def between(cls, begin, end, jobs):
        seconds = max(end.at - begin.at, 1e-6)
        each = max(jobs, 1)
        return cls(
            seconds,
            jobs / seconds,
            (end.worker - begin.worker) / each * 1e6,
            (end.redis - begin.redis) / each * 1e6,
            (end.commands - begin.commands) / each,
        )


def redis_cpu(info):
    """All of it: the main thread, the threads that write to disk, and children that rewrite the file."""
    names = ("used_cpu_sys", "used_cpu_user", "used_cpu_sys_children", "used_cpu_user_children")
    return sum(float(info[name]) for name in names)


def commands(stats):
    """Every command that was executed, those that scripts call included."""
    calls = (text.split(",", 1)[0] for name, text in stats.items() if name.startswith("cmdstat_"))
    return sum(int(text.removeprefix("calls=")) for text in calls)


def tree_cpu(pid):
    """CPU seconds of a process, its living descendants, and those that have ended and were waited for."""
    return sum(_process_cpu(member) for member in tree(pid))


def _process_cpu(pid):
    """The CPU clock of a process counts nanoseconds; only what its ended children used is known in ticks alone."""
    try:
        # Behind the name, which may hold spaces: cutime and cstime are fields 16 and 17.
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return time.clock_gettime(_cpu_clock(pid)) + sum(map(int, fields[13:15])) / TICK
    except OSError:
        return 0.0


def _cpu_clock(pid):
    """What clock_getcpuclockid(3) returns, which Python has for threads of its own only."""
    scheduled = 2
    return (~pid << 3) | scheduled


def tree_rss(pid):
    """Resident megabytes of a process and its descendants; pages that they share count in each."""
    return sum(_process_rss(member) for member in tree(pid)) / 1e6


def _process_rss(pid):
    try:
        return int(_read(f"/proc/{pid}/statm").split()[1]) * PAGE
    except OSError:
        return 0


def tree(pid):
    """A process and its living descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            children.setdefault(_parent(int(entry)), []).append(int(entry))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def _parent(pid):
    try:
        return int(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
    except OSError:
        return None


def _read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()
