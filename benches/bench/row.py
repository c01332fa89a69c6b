"""What a row of the table is: contenders that do the same work, and the number by which they are compared."""

from collections.abc import Callable
from dataclasses import dataclass

from .sample import Sample


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    binary: str
    base: int
    quick: bool
    concurrency: int

    def jobs(self, share):
        """A contender's jobs: its share of the base, so that slow ones take seconds and fast ones are measurable."""
        return max(min(self.base, 100), int(self.base * share))

    def seconds(self, full):
        """A stretch of time, much shorter in a quick run."""
        return max(1, full // 10) if self.quick else full


@dataclass(frozen=True)
class Contender:
    """`run` makes one measurement on a Redis of its own."""

    name: str
    run: Callable[[Options], Sample]
    # What benches/run must install: "ab", "python" or "node".
    needs: str | None = None
    # Somebody else's system: left out on request.
    is_peer: bool = False
    # Does the same work, so that a ratio to it means something.
    is_compared: bool = True


def peer(name, run, needs):
    return Contender(name, run, needs, is_peer=True)


@dataclass(frozen=True)
class Row:
    """`contenders` run in this order in each round; `jobsd` names the one whose ratio to the others is printed."""

    name: str
    title: str
    unit: str
    value: Callable[[Sample], float]
    contenders: tuple[Contender, ...]
    jobsd: str
    more_is_better: bool = True
    # Long rows run only when they are named.
    opt_in: bool = False


def rate(sample):
    return sample.rate
