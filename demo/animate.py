"""Draws a recorded terminal as an animated GIF, and shortens a recording to what one likes to watch.

    python animate.py demo.cast demo.gif              draws it
    python animate.py demo.cast demo.gif raw.cast     shortens raw.cast to demo.cast first
"""

import itertools
import json
import os
import re
import sys

import matplotlib
from PIL import Image, ImageDraw, ImageFont

RUN, LAST, FRAME = 3.8, 5.0, 0.1  # seconds: a command's at most, the last screen's, a frame's at least
FONT = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSansMono.ttf')


def shorten(header, events):
    """The recording in less time: what a command prints takes at most RUN, what is typed takes as long as it took."""
    shown, now, starts = [], 0.0, [i for i, (_, text) in enumerate(events) if text.startswith('$ ')]
    for start, end in itertools.pairwise([*starts, len(events)]):
        enter = next(i for i in range(start, end) if '\n' in events[i][1] and not events[i][1].endswith('\\\r\n'))
        taken = events[end - 1][0] - events[enter][0]
        for i in range(start, end):
            gap = events[i][0] - events[i - 1][0] if i > start else 0.3
            now += gap * min(1, RUN / taken) if i > enter else min(gap, 0.5)
            if shown and now - shown[-1][0] < FRAME:
                shown[-1][1] += events[i][1]
            else:
                shown.append([round(now, 2), events[i][1]])
    for event in shown:  # one bar on top of another is not seen
        event[1] = re.sub(r'\r[^\r\n]*steps(?=\r[^\r\n]*steps)', '', event[1])
    seconds = events[-1][0] - events[0][0]
    title = f'Time compressed: {seconds / 60:.0f} minutes in {now + LAST:.0f} seconds'
    return {**header, 'title': title, 'idle_time_limit': LAST}, [*shown, [round(now + LAST, 2), '']]


class Screen:
    """The lines of a terminal that knows carriage returns, line feeds and the end of a line."""

    def __init__(self, width, height):
        self.width, self.height, self.lines, self.column = width, height, [''], 0

    def feed(self, text):
        for character in re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', text):
            if character == '\r':
                self.column = 0
            elif character == '\n':
                self.lines = [*self.lines, ''][-self.height:]
            else:
                if self.column == self.width:
                    self.lines, self.column = [*self.lines, ''][-self.height:], 0
                line = self.lines[-1].ljust(self.column)
                self.lines[-1] = line[:self.column] + character + line[self.column + 1:]
                self.column += 1


def draw(header, lines):
    """A frame, light on dark, 850 pixels wide: the title, and the lines."""
    font = ImageFont.truetype(FONT, 12)
    image = Image.new('L', (850, 15 * header['height'] + 46), 28)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 850, 24), fill=70)
    pen.text((14, 5), header['title'], 255, font)
    pen.text((14, 36), '\n'.join(lines), 220, font, spacing=3)
    return image.point(lambda value: value // 36 * 36)  # eight greys


def main(cast, gif, raw=None):
    with open(raw or cast) as file:
        header, *events = map(json.loads, file)
    events = [[time, text] for time, kind, text in events if kind == 'o']
    if raw:
        header, events = shorten(header, events)
        with open(cast, 'w') as file:
            file.writelines(json.dumps(line) + '\n' for line in [header, *([t, 'o', text] for t, text in events)])
    screen, frames, durations = Screen(header['width'], header['height']), [], []
    for (time, text), (end, _) in itertools.pairwise(events):
        screen.feed(text)
        frames.append(draw(header, screen.lines))
        durations.append(10 * round(100 * (end - time)))
    frames[0].save(gif, save_all=True, append_images=frames[1:], duration=durations, loop=0)


if __name__ == '__main__':
    main(*sys.argv[1:])
