"""Progress bars and sizes for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etr_ros.datasets import FrameSource
    from etr_ros.types import Frame


def track(source: FrameSource, what: str) -> Iterable[Frame]:
    """The frames of `source`, with a bar on stderr that shows rate and time left; silent when stderr is no terminal."""
    from tqdm import tqdm

    bar: Iterable[Frame] = tqdm(source, desc=what, total=source.expected, unit=" pictures", disable=None)
    return bar


@contextmanager
def stages() -> Iterator[Callable[..., None]]:
    """A bar on stderr for work in stages, told of it by calls (stage, done, total, note="")."""
    from tqdm import tqdm

    with tqdm(mininterval=1.0) as bar:

        def show(stage: str, done: int, total: int, note: str = "") -> None:
            if bar.desc != f"{stage}: ":
                bar.reset(total)
                bar.set_description(stage)
            bar.total = total
            bar.update(done - bar.n)
            if note:
                bar.set_postfix_str(note, refresh=False)

        yield show


def size_text(size_bytes: int) -> str:
    """Such as "12.3 MB"."""
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
