"""One file over HTTP into its place: resumable, checked, atomic."""

from __future__ import annotations

import fcntl
import hashlib
import http
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from etr_ros.errors import WeightsError

_CHUNK = 1 << 18
_TIMEOUT_S = 30.0

Progress = Callable[[int, int], object]  # bytes that are here, bytes in total


def download(url: str, target: Path, sha256: str, size: int, progress: Progress | None = None) -> None:
    """Fetch `url`, which has `size` bytes, to `target`; what an earlier try left in `target`.part is continued.

    `target` appears only when the checksum is right. Raises WeightsError; a part with a wrong checksum is deleted.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as sink:
            _lock(sink, target)
            if sink.tell() < size:
                _append(url, sink, size, progress)
            sink.flush()
            if sha256_of(part) != sha256:
                part.unlink()
                raise WeightsError(f"what {url} sent has a wrong checksum and was deleted; try again later")
            part.replace(target)
    except urllib.error.HTTPError as error:
        raise WeightsError(f"cannot download {url}: the server answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise WeightsError(f"the download of {url} stopped: {error}; run the same command to continue") from error
    except OSError as error:
        raise WeightsError(f"cannot write {target}: {error}") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _lock(sink: BinaryIO, target: Path) -> None:
    try:
        fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise WeightsError(f"another process is fetching {target}; wait for it") from error


def _append(url: str, sink: BinaryIO, size: int, progress: Progress | None) -> None:
    """Append to `sink` what is missing, or all of it from the start when the server cannot continue."""
    done = sink.tell()
    with _open(url, done) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            sink.truncate(0)
            done = 0
        while chunk := response.read(min(_CHUNK, size - done)):
            sink.write(chunk)
            done += len(chunk)
            if progress:
                progress(done, size)
    if done < size:
        raise ConnectionError(f"the connection ended after {done} of {size} bytes")


def _open(url: str, start: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    return response
