"""How the commands show progress: a rich bar on a terminal, a plain line every ten seconds anywhere else.

Everything goes to stderr, so stdout carries results alone.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from handaug.data_specs.progress import Advance

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars

__all__ = ["Meter", "RichProgress", "duration"]

PLAIN_INTERVAL_S = 10.0
"""Log files get one line per task at most this often."""

WINDOW_S = 60.0
"""The rate is the mean over the last minute: steady enough to read, quick enough to follow a slower phase."""

ALREADY_DONE_S = 0.5
"""Units reported within this time of the start were found done (a resumed job) and say nothing about the rate."""


def duration(seconds: float) -> str:
    """Format seconds as `m:ss` or `h:mm:ss`.

    >>> duration(75), duration(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Meter:
    """Counts units and derives rate and time left.

    Args:
        total: Units in the whole task.
        unit: Name of one unit, for the text.
        clock: Seconds that only grow; replaced in tests.
    """

    def __init__(self, total: int, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self._clock = clock
        self._start = clock()
        self._points: deque[tuple[float, int]] = deque([(self._start, 0)])

    def add(self, n: int) -> None:
        """Count `n` more units."""
        self.done += n
        now = self._clock()
        if now - self._start < ALREADY_DONE_S:
            self._points.clear()
        self._points.append((now, self.done))
        while len(self._points) > 2 and now - self._points[0][0] > WINDOW_S:
            self._points.popleft()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def rate(self) -> float | None:
        """Units per second over the last minute; None before it can be known."""
        (first_time, first), (last_time, last) = self._points[0], self._points[-1]
        return (last - first) / (last_time - first_time) if last > first and last_time > first_time else None

    def text(self) -> str:
        """`12/100 images, 3.4 images/s, ETA 0:26`; the last part is the time taken once all is done."""
        count = f"{self.done:,}/{self.total:,} {self.unit}"
        rate = self.rate()
        speed = "" if rate is None else f", {rate:,.{0 if rate >= 100 else 1 if rate >= 1 else 2}f} {self.unit}/s"
        if self.done >= self.total:
            return f"{count}{speed}, took {duration(self.elapsed)}"
        return f"{count}{speed}, ETA {'?' if rate is None else duration((self.total - self.done) / rate)}"


class RichProgress:
    """`handaug.data_specs.progress.Progress` for people.

    Args:
        stream: Where to write; stderr by default.
        plain: Force plain lines (True) or bars (False); by default bars are for terminals.
    """

    def __init__(self, stream: TextIO | None = None, plain: bool | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._plain = not self._stream.isatty() if plain is None else plain
        self._bars: RichBars | None = None
        self._depth = 0

    @contextmanager
    def task(self, label: str, total: int, unit: str) -> Iterator[Advance]:
        """Show a task of `total` units while the block runs; nested tasks get a line of their own."""
        meter = Meter(total, unit)
        show = self._plain_task(label, meter) if self._plain else self._bar_task(label, meter)
        with show as refresh:

            def advance(n: int) -> None:
                meter.add(n)
                refresh()

            yield advance

    def note(self, text: str) -> None:
        """Print one line, above the bars if there are any."""
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    @contextmanager
    def _plain_task(self, label: str, meter: Meter) -> Iterator[Callable[[], None]]:
        told_at = 0.0
        told = -1

        def say() -> None:
            nonlocal told_at, told
            told_at, told = meter.elapsed, meter.done
            print(f"{label}: {meter.text()}", file=self._stream, flush=True)

        def refresh() -> None:
            if meter.elapsed - told_at >= PLAIN_INTERVAL_S:
                say()

        self._depth += 1
        try:
            yield refresh
        finally:
            self._depth -= 1
            # Inner tasks that end within one interval (an epoch, a shard) would fill a log with their last lines.
            if meter.done != told and (self._depth == 0 or meter.elapsed >= PLAIN_INTERVAL_S):
                say()

    @contextmanager
    def _bar_task(self, label: str, meter: Meter) -> Iterator[Callable[[], None]]:
        bars = self._open_bars()
        key = bars.add_task(label, total=meter.total, text=meter.text())
        self._depth += 1
        try:
            yield lambda: bars.update(key, completed=meter.done, text=meter.text())
        finally:
            self._depth -= 1
            bars.update(key, completed=meter.done, text=meter.text())
            if self._depth == 0:
                bars.stop()
                self._bars = None
            else:
                bars.remove_task(key)

    def _open_bars(self) -> "RichBars":
        if self._bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[text]}", markup=False),
                console=Console(file=self._stream),
            )
            self._bars.start()
        return self._bars
