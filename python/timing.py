"""Times: measured in turn, so that what else the machine does falls on all that is compared; and as they are shown."""

import sys
import time

import tensorflow as tf


def clock(seconds):
    """Hours, minutes and seconds as text, 27:46:40; no days, which a column has no room for."""
    minutes, seconds = divmod(round(seconds), 60)
    return f'{minutes // 60}:{minutes % 60:02}:{seconds:02}'


def timed(function, *arguments):
    """Seconds that a call takes."""
    started = time.perf_counter()
    function(*arguments)
    tf.test.experimental.sync_devices()  # a GPU works on after the call
    return time.perf_counter() - started


def in_turn(rows, rounds):
    """Lists of seconds by row: every row once a round, the first of the `rounds` + 1 for warming up."""
    found = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, row in rows.items():
            found[name].append(row())
            if sys.stderr.isatty():
                print(f'\rround {number} of {rounds} ', end='', file=sys.stderr, flush=True)
    return {name: taken[1:] for name, taken in found.items()}
