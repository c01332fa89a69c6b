"""A producer's beat: calls `send(number)` at a fixed rate, whether or not the last call was quick."""

import os
import time


def pace(send, rate, count):
    """Writes when each call began, in the form of `stamps`, to the file BENCH_SENT."""
    sent, began = [], time.monotonic()
    for number in range(count):
        time.sleep(max(0, began + number / rate - time.monotonic()))
        sent.append((number, time.monotonic_ns()))
        send(number)
    with open(os.environ["BENCH_SENT"], "w", encoding="utf-8") as file:
        file.writelines(f"{number} {at}\n" for number, at in sent)
