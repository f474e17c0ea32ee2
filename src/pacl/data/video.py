"""Frames of videos, decoded one after the other (the only file that imports av)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING

from PIL import Image

from pacl.data.source import Source, failing
from pacl.errors import InputError
from pacl.runtime.packages import require_packages

if TYPE_CHECKING:
    from av import VideoFrame

_COMPLETE = 0.95
"""A video with less than this share of the frames that it declares is damaged."""


def iter_frames(name: str, *, every: int = 1) -> Iterator[Source]:
    """Yield a video's frames, each to be turned into an image when it is opened.

    Args:
        name: A file or an http or https address.
        every: Take every so many frames, from the first on.

    Yields:
        Sources of one sequence, named VIDEO/STEM_000120_00h00m04s800 by frame and time; where
        the video is damaged or cut off, the last one fails.

    Raises:
        EnvironmentProblem: The package av is not installed.
    """
    av = _import_av()
    stem, n_read, n_declared = PurePosixPath(name.replace("\\", "/")).stem, 0, 0
    try:
        with av.open(name) as container:
            if not container.streams.video:
                raise InputError(f"{name} holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            n_declared, rate = stream.frames, stream.average_rate or 25
            for number, frame in enumerate(container.decode(stream)):
                n_read = number + 1
                if number % every == 0:
                    time_s = number / float(rate) if frame.time is None else frame.time
                    label = f"{name}/{stem}_{number:06d}_{format_time(time_s)}"
                    yield Source(label, partial(_to_image, frame), sequence=name)
    except InputError as error:
        yield failing(name, error)
        return
    except (av.error.FFmpegError, OSError, ValueError) as error:
        problem = f"{name} is damaged after {n_read:,} frames" if n_read else f"cannot read {name}"
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        yield failing(name, InputError(problem, why=why))
        return
    if n_read < _COMPLETE * n_declared or not n_read:
        problem = f"{name} is cut off after {n_read:,} of {n_declared:,} frames"
        yield failing(name, InputError(problem))


def count_frames(name: str, *, every: int = 1) -> int | None:
    """Return about how many frames will be taken; None where the video does not say.

    Raises:
        EnvironmentProblem: The package av is not installed.
    """
    av = _import_av()
    if "://" in name:  # not worth a request of its own
        return None
    try:
        with av.open(name) as container:
            n_frames = container.streams.video[0].frames
    except (av.error.FFmpegError, OSError, ValueError, IndexError):
        return 1  # one failure
    return -(-n_frames // every) or None


def format_time(time_s: float) -> str:
    """Format a time stamp so that names sort by it and any file system takes it."""
    milliseconds = round(time_s * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}h{minutes % 60:02d}m{rest // 1000:02d}s{rest % 1000:03d}"


def _to_image(frame: VideoFrame) -> Image.Image:
    """Return a frame as RGB, upright as the camera noted."""
    return frame.to_image().rotate(frame.rotation, expand=True)


def _import_av() -> ModuleType:
    require_packages(["av"], purpose="reading videos")
    import av
    import av.error

    return av
