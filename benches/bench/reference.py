"""What the machine and its Redis can do by themselves: `redis-benchmark`, and the barest queue that keeps its promise.

The bare queue ("A6") is design A6 at the level of commands: the payload stands in the list's element, a fetch moves up
to 32 elements to the in-flight hash of its node and renews the node's lease, and the acknowledgement of the last batch,
fenced by the node's token, travels in the same write. There are no records, results, retries, metrics; nothing is
parsed. Four connections keep one request each in flight, all in one thread of this program: its CPU is in the table, to
see that Redis is the limit and not the client.
"""

import csv
import os
import selectors
import subprocess
import time
import uuid

from .jobsd import DATA, Miscount
from .meter import Cost, Reading
from .resp import Redis, encode
from .sample import Sample

BATCH = 32
NODES = 4
ID = 36
LEASE = 15_000

FETCH = """
-- KEYS  pending, leases, in flight of the node; ARGV  node, end of lease (ms), limit.  Returns the elements.
redis.call('ZADD', KEYS[2], 'GT', ARGV[2], ARGV[1])
local elements = redis.call('RPOP', KEYS[1], ARGV[3])
if not elements then
  return {}
end
local flat = {}
for i = 1, #elements do
  flat[i * 2 - 1], flat[i * 2] = string.sub(elements[i], 1, 36), elements[i]
end
redis.call('HSET', KEYS[3], unpack(flat))
return elements
"""
ACK = """
-- KEYS  tokens, in flight of the node, counters; ARGV  node, its token, ids.  Returns how many were acknowledged.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return -1
end
local done = redis.call('HDEL', KEYS[2], unpack(ARGV, 3))
redis.call('HINCRBY', KEYS[3], 'completed', done)
return done
"""


def bare(server, jobs):
    """Fetches and acknowledges `jobs` jobs of 300-byte arguments."""
    redis = server.redis
    scripts = [redis.call("SCRIPT", "LOAD", text) for text in (FETCH, ACK)]
    payload = ('{"task":"noop","args":{"data":"%s"}}' % DATA).encode()
    fill(redis, jobs, payload)
    for node in range(NODES):
        redis.call("HSET", "{a6}:tokens", node, node + 1)
    # The client, this process, is the worker.
    begin = Reading.take(os.getpid(), server)
    used = time.process_time()
    drain([Node(server.port, number, scripts, ID + len(payload)) for number in range(NODES)])
    used = time.process_time() - used
    cost = Cost.between(begin, Reading.take(os.getpid(), server), jobs)
    done = int(redis.call("HGET", "{a6}:counters", "completed"))
    left = redis.call("LLEN", "{a6}:pending") + sum(redis.call("HLEN", f"{{a6}}:{node}") for node in range(NODES))
    if done != jobs or left:
        raise Miscount(f"{jobs} jobs should be acknowledged and none left: {done}, {left}")
    busy = {"client %": used / cost.seconds * 100, "redis %": cost.redis_us * cost.rate / 1e4}
    return Sample(cost.rate, used / jobs * 1e6, cost.redis_us, cost.commands, more=busy)


def fill(redis, jobs, payload, batch=500):
    for begin in range(0, jobs, batch):
        elements = (str(uuid.uuid4()).encode() + payload for _ in range(min(batch, jobs - begin)))
        redis.call("LPUSH", "{a6}:pending", *elements)


class Node:
    """One connection that is one node of the bare queue."""

    def __init__(self, port, number, scripts, size):
        self.redis = Redis(port)
        self.socket = self.redis.socket
        self._scripts, self._number, self._fetched = scripts, number, []
        # Elements are of one length, so a reply is cut, not parsed.
        self._prefix = len(b"$%d\r\n" % size)
        self._step = self._prefix + size + 2

    def ask(self):
        """Acknowledges the last batch and fetches the next one, in one write."""
        fetch, ack = self._scripts
        mine, until = f"{{a6}}:{self._number}", int(time.time() * 1000) + LEASE
        commands = b""
        if self._fetched:
            token = self._number + 1
            keys = ("{a6}:tokens", mine, "{a6}:counters")
            commands = encode("EVALSHA", ack, 3, *keys, self._number, token, *self._fetched)
        keys = ("{a6}:pending", "{a6}:leases", mine)
        self.socket.sendall(commands + encode("EVALSHA", fetch, 3, *keys, self._number, until, BATCH))

    def hear(self):
        """Reads one answer; whether there was anything to fetch."""
        if self._fetched and self.redis.reply() != len(self._fetched):
            raise Miscount("the bare queue refused an acknowledgement")
        count = int(self.redis.file.readline()[1:-2])
        reply = self.redis.file.read(count * self._step)
        self._fetched = [reply[at : at + ID] for at in range(self._prefix, len(reply), self._step)]
        return count > 0


def drain(nodes):
    with selectors.DefaultSelector() as selector:
        for node in nodes:
            node.ask()
            selector.register(node.socket, selectors.EVENT_READ, node)
        while selector.get_map():
            for key, _ in selector.select():
                if key.data.hear():
                    key.data.ask()
                else:
                    selector.unregister(key.data.socket)
                    key.data.redis.close()


def redis_benchmark(server, commands):
    """SET of 300 bytes over 4 connections, 32 in a write: how fast the machine is at this moment."""
    command = ["redis-benchmark", "-p", str(server.port), "-t", "set", "-c", "4", "-P", "32", "-d", "300"]
    command += ["-r", "100000", "-n", str(commands), "--csv"]
    begin = Reading.take(server.child.pid, server)
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    cost = Cost.between(begin, Reading.take(server.child.pid, server), commands)
    rate = next(float(line[1]) for line in csv.reader(said.splitlines()) if line[0] == "SET")
    return Sample(rate, redis_us=cost.redis_us, commands=cost.commands)
