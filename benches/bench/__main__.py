"""The command line: which rows, how often, how large; runs them in rounds and prints the table."""

import argparse
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

from . import table
from .child import ChildFailed
from .jobsd import Miscount
from .resp import RedisError
from .row import Options
from .rows import ALL

JOBS, QUICK_JOBS = 100_000, 2_000


def main():
    options = parse()
    rows = chosen(options)
    if options.needs:
        print(*sorted(needs(rows)))
        return
    # So that whatever was started is ended, and temporary folders are removed, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    samples, failure = {}, None
    try:
        rounds(rows, options, samples)
    except (ChildFailed, Miscount, RedisError, TimeoutError, KeyboardInterrupt) as error:
        failure = f"error: stopped at the first failure: {error or 'interrupted'}"
    print(f"{circumstances(options)}\n\n{table.render(rows, samples)}")
    if options.json:
        save(options.json, samples)
    sys.exit(failure)


def parse():
    names = ", ".join(row.name + (" (only when named)" if row.opt_in else "") for row in ALL)
    about = "Measures jobsd beside its peers; benches/README.md has the method."
    parser = argparse.ArgumentParser(prog="benches/run", description=about, epilog=f"rows: {names}")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows of the table; all but the long one by default")
    parser.add_argument("--rounds", type=int, help="times that everything is measured, one after another (5; quick: 1)")
    size = f"jobs of a drain; slow peers get a share ({JOBS}; quick: {QUICK_JOBS})"
    parser.add_argument("--jobs", type=int, help=size)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works, measures nothing")
    parser.add_argument("--jobsd-only", action="store_true", help="without the peers, but with the references")
    parser.add_argument("--concurrency", type=int, default=50, help="of jobsd's queue (50)")
    parser.add_argument("--jobsd", default="target/release/jobsd", metavar="PATH", help="(target/release/jobsd)")
    parser.add_argument("--json", metavar="FILE", help="writes every sample there")
    parser.add_argument("--needs", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.rows) - {row.name for row in ALL}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}; rows: {names}")
    for name in ("rounds", "jobs", "concurrency"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be 1 or more")
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.jobs = options.jobs or (QUICK_JOBS if options.quick else JOBS)
    options.jobsd = os.path.abspath(options.jobsd)
    if not options.needs and not os.access(options.jobsd, os.X_OK):
        parser.error(f"there is no program {options.jobsd}: `cargo build --release` makes it, --jobsd names another")
    return options


def chosen(options):
    rows = [row for row in ALL if (row.name in options.rows if options.rows else not row.opt_in)]
    if options.jobsd_only:
        rows = [without_peers(row) for row in rows]
    return rows


def without_peers(row):
    own = tuple(contender for contender in row.contenders if not contender.is_peer)
    return dataclasses.replace(row, contenders=own)


def needs(rows):
    return {contender.needs for row in rows for contender in row.contenders if contender.needs}


def rounds(rows, options, samples):
    """Everything once, then everything again: what a machine does meanwhile hits all alike."""
    sizes = Options(options.jobsd, options.jobs, options.quick, options.concurrency)
    for number in range(1, options.rounds + 1):
        for row in rows:
            for contender in row.contenders:
                began = time.monotonic()
                sample = contender.run(sizes)
                samples.setdefault((row.name, contender.name), []).append(sample)
                took = time.monotonic() - began
                value = f"{table.number(row.value(sample))} {row.unit}"
                said = f"round {number}  {row.name:8} {contender.name:34} {value:>18}  ({took:.1f} s)"
                print(said, file=sys.stderr, flush=True)


def circumstances(options):
    """What the numbers depend on, in one line."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    redis = re.search(r"v=(\S+)", version("redis-server"))[1]
    programs = f"{version(options.jobsd)}, Redis {redis}"
    sizes = f"{options.rounds} × {options.jobs:,} jobs, concurrency {options.concurrency}"
    return f"{time.strftime('%Y-%m-%d')}: {programs}, {os.cpu_count()} × {model}; {sizes}"


def version(program):
    return subprocess.check_output([program, "--version"], text=True).strip()


def save(path, samples):
    listed = [
        {"row": row, "contender": contender, "samples": [dataclasses.asdict(sample) for sample in found]}
        for (row, contender), found in samples.items()
    ]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(listed, file, indent=2)


if __name__ == "__main__":
    main()
