"""Where things are: this folder, the installed peers, the programs of each."""

import os

BENCHES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = os.path.join(BENCHES, "peers")
# benches/run installs them here.
INSTALLED = os.path.join(os.path.dirname(BENCHES), "target", "bench-peers")
# BENCH_PYTHON names an interpreter that has celery and rq already.
PYTHON = os.environ.get("BENCH_PYTHON") or os.path.join(INSTALLED, "venv", "bin", "python")
NODE_MODULES = os.path.join(INSTALLED, "node", "node_modules")


def program(name):
    return os.path.join(PROGRAMS, name)
