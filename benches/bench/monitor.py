"""What Redis was told, and when by its own clock in microseconds: MONITOR, read when the run is over."""

import re

from .resp import Redis

LINE = re.compile(r"\+?(\d+\.\d+) \[\d+ ([^\]]+)\] (.*)", re.DOTALL)
WORD = re.compile(r"[0-9A-Za-z_-]{16,}")
END = "end-of-the-benchmark"


class Monitor:
    """Redis keeps what is said meanwhile in the connection's buffer: nothing competes with what is measured."""

    def __init__(self, server):
        self._server = server
        self._redis = Redis(server.port)
        self._redis.call("MONITOR")

    def calls(self):
        """Ends it: [time, who, text] for each call of a client; what a script called stands in the script's text."""
        self._server.redis.call("ECHO", END)
        calls = []
        while True:
            at, who, text = LINE.match(self._redis.file.readline().decode("utf-8", "replace")).groups()
            if END in text:
                break
            if who == "lua":
                calls[-1][2] += text
            else:
                calls.append([float(at), who, text])
        self._redis.close()
        return calls


def second_mentions(calls, ids):
    """For each id the seconds from the call that mentions it first, which enqueues it, to the next one, which claims.

    That holds for every layout of keys: whoever claims a job writes down that it did.
    """
    first, second = {}, {}
    for at, _, text in calls:
        for word in set(WORD.findall(text)):
            if word not in ids:
                continue
            if word not in first:
                first[word] = at
            elif word not in second:
                second[word] = at
    return {name: second[name] - first[name] for name in second}
