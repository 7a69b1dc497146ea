"""A still of a recording: its last screen, with a play sign.

    python snapshot.py demo.cast demo_snapshot.png
"""

import json
import sys

import matplotlib
import pyte

matplotlib.use('agg')
from matplotlib import pyplot  # noqa: E402, after the choice of a backend


def last_screen(path):
    """The lines that a terminal shows at the end of an asciinema v2 file."""
    with open(path) as file:
        header, *events = map(json.loads, file)
    screen = pyte.Screen(header['width'], header['height'])
    stream = pyte.Stream(screen)
    for _, kind, text in events:
        if kind == 'o':
            stream.feed(text)
    return screen.display


def draw(lines, picture):
    """Draws lines of text, light on dark, and a play sign on the right, where the lines leave room, as a PNG file."""
    columns, rows = len(lines[0]), len(lines)
    figure = pyplot.figure(figsize=(columns * 0.076, rows * 0.165), facecolor='#1c1f24')
    for row, line in enumerate(lines):
        figure.text(0.01, 0.985 - row * 0.97 / rows, line, color='#d8dbe0', family='monospace', fontsize=8.8, va='top')
    axes = figure.add_axes([0, 0, 1, 1])
    axes.set(xlim=(-1, 1), ylim=(-rows * 0.165 / (columns * 0.076), rows * 0.165 / (columns * 0.076)))
    axes.axis('off')
    x = 0.62
    axes.add_patch(pyplot.Circle((x, 0), 0.12, color='white', alpha=0.85))
    axes.add_patch(pyplot.Polygon([(x - 0.035, -0.06), (x - 0.035, 0.06), (x + 0.07, 0)], color='#1c1f24'))
    figure.savefig(picture, dpi=100, facecolor=figure.get_facecolor())


if __name__ == '__main__':
    draw(last_screen(sys.argv[1]), sys.argv[2])
