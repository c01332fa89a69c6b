"""The one table: medians over the rounds, their spread, and how jobsd compares."""

from statistics import median

HEAD = ("what", "who", "median", "min – max", "jobsd ×")
HEAD += ("worker µs/job", "Redis µs/job", "commands/job", "RSS MB", "also")


def render(rows, samples):
    """`samples` holds for each row's name and contender's name one sample a round, in the order of the rounds."""
    lines = [HEAD]
    for row in rows:
        title = row.title
        for contender in row.contenders:
            found = samples.get((row.name, contender.name))
            if found:
                is_compared = contender.is_compared and contender.name != row.jobsd
                jobsd = samples.get((row.name, row.jobsd)) if is_compared else None
                lines.append((title, *line(row, contender, found, jobsd)))
                title = ""
    return "\n".join(aligned(lines))


def line(row, contender, found, jobsd):
    values = [row.value(sample) for sample in found]
    return (
        contender.name,
        f"{number(median(values))} {row.unit}",
        f"{number(min(values))} – {number(max(values))}",
        ratio(row, values, jobsd),
        middle(found, lambda sample: sample.worker_us),
        middle(found, lambda sample: sample.redis_us),
        middle(found, lambda sample: sample.commands),
        middle(found, lambda sample: sample.rss),
        ", ".join(f"{name} {middle(found, lambda sample, n=name: sample.more.get(n))}" for name in found[0].more),
    )


def ratio(row, values, jobsd):
    """The median of the rounds' ratios: both sides of each were measured within a minute or so of each other."""
    if not jobsd:
        return ""
    pairs = [(row.value(sample), value) for sample, value in zip(jobsd, values)]
    better = [ours / theirs if row.more_is_better else theirs / ours for ours, theirs in pairs if ours and theirs]
    return number(median(better)) if better else ""


def middle(found, of):
    values = [value for value in map(of, found) if value is not None]
    return number(median(values)) if values else ""


def number(value):
    """Three digits that count, and no more than the noise allows."""
    if value >= 1000:
        return f"{round(value, 2 - len(str(int(value))) + 1):,.0f}"
    return f"{value:.3g}" if value >= 0.01 or value == 0 else f"{value:.1g}"


def aligned(lines):
    """Columns of equal width, in the form that README files take."""
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEAD))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return text
