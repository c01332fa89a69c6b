"""What one run of one contender gave: numbers by name. A number that was not measured is absent."""

from dataclasses import dataclass, field


@dataclass
class Sample:
    """`rate` is jobs a second; the times of the latency runs are milliseconds; `rss` is megabytes."""

    rate: float | None = None
    worker_us: float | None = None
    redis_us: float | None = None
    commands: float | None = None
    rss: float | None = None
    # Numbers of one row alone, by the name that the table prints.
    more: dict[str, float] = field(default_factory=dict)
