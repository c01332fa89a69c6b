"""Kills jobsd nodes at random under load and counts what became of every accepted job.

Three nodes share one private Redis (append-only file on). Jobs are put in over HTTP while one random node after another
gets SIGKILL (two times in three) or SIGTERM and is started again. At the end every accepted job must be completed: prints
one JSON line, and exits 1 when any is lost, dead or still waiting.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

NODES = 3
BATCH = 500
CONFIG = """
[redis]
url = "redis://127.0.0.1:{redis}/0"
[node]
state_dir = "{state}"
lease = "3s"
[admin]
listen = "127.0.0.1:{admin}"
[queues.work]
concurrency = 50
crash_limit = 1000
keep_completed = {{ age = "1d", count = 1000000 }}
[tasks.work]
queue = "work"
params = {{ seconds = "number" }}
probe = {{ op = "sleep" }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    def __init__(self, binary, folder, number, redis):
        self.binary, self.folder, self.admin, self.process = binary, folder, free_port(), None
        self.config = os.path.join(folder, f"{number}.toml")
        with open(self.config, "w", encoding="utf-8") as file:
            state = os.path.join(folder, f"state{number}")
            file.write(CONFIG.format(redis=redis, state=state, admin=self.admin))

    def start(self):
        with open(self.config + ".log", "ab") as log:
            self.process = subprocess.Popen([self.binary, "run", "-c", self.config], stderr=log)
        deadline = time.monotonic() + 20
        while not self.lives():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.config + ".log", encoding="utf-8") as log:
                    sys.exit("a node did not start:\n" + log.read()[-2000:])
            time.sleep(0.01)

    def lives(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/livez", timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def end(self, how):
        self.process.send_signal(how)
        try:
            self.process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", data=data, timeout=10) as answer:
            return json.load(answer)


def enqueue(nodes, accepted):
    """Puts a batch in under ids of our own, on any node that answers: a repeated one adds nothing."""
    batch = [
        {"id": f"job-{accepted + n}", "task": "work", "args": {"seconds": random.random() * 0.2}} for n in range(BATCH)
    ]
    for node in random.sample(nodes, len(nodes)):
        try:
            node.call("/api/v1/jobs", batch)
            return BATCH
        except (OSError, urllib.error.URLError):
            continue
    return 0


def queue(nodes):
    for node in nodes:
        try:
            answer = node.call("/api/v1/queues")
            return (answer if isinstance(answer, list) else answer["queues"])[0]
        except (OSError, urllib.error.URLError):
            continue
    return None


def settled(nodes, accepted, deadline):
    found = None
    while time.monotonic() < deadline:
        found = queue(nodes) or found
        if found and found["jobs"]["completed"] + found["jobs"]["dead"] >= accepted:
            break
        time.sleep(0.2)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        redis = free_port()
        server = subprocess.Popen(
            ["redis-server", "--port", str(redis), "--save", "", "--appendonly", "yes", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        nodes = [Node(options.binary, folder, number, redis) for number in range(NODES)]
        try:
            ok = run(nodes, options)
        finally:
            for node in nodes:
                if node.process and node.process.poll() is None:
                    node.end(signal.SIGTERM)
            server.terminate()
            server.wait()
    sys.exit(0 if ok else 1)


def run(nodes, options):
    for node in nodes:
        node.start()
    accepted = kills = 0
    end = time.monotonic() + options.seconds
    while time.monotonic() < end or accepted < options.jobs:
        if accepted < options.jobs:
            accepted += enqueue(nodes, accepted)
        node = random.choice(nodes)
        node.end(random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        node.start()
        kills += 1
        time.sleep(random.random() * 0.6)
    found = settled(nodes, accepted, time.monotonic() + 120)
    lost = accepted - found["jobs"]["completed"] - found["jobs"]["dead"]
    report = {"accepted": accepted, "kills": kills, "lost": lost, "dead": found["jobs"]["dead"]}
    report["attempts_cut_off"] = found["totals"]["crashed_attempts"]
    print(json.dumps(report))
    return lost == 0 and found["jobs"]["dead"] == 0


if __name__ == "__main__":
    main()
