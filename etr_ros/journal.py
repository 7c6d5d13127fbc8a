"""What the networks said of a recording so far, on disk, so that an interrupted replay goes on where it was.

Features of a picture and matches of a keyframe are the work; whatever follows from them is done again and comes out the
same. One file of features and one line of matches for each picture; the last line may be cut and is then left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from etr_ros import result_rows as rows
from etr_ros.anytime import UNLIMITED, Allowance
from etr_ros.config import Config
from etr_ros.errors import DataError
from etr_ros.features import Extractor
from etr_ros.pipeline import Drive, Networks, Places, Stopwatch
from etr_ros.result import Outcome, Query
from etr_ros.types import Features, PlaceMatch, State, View


class Journal:
    """The networks' answers under `path`, kept for one and the same work."""

    def __init__(self, path: Path, work: dict[str, Any], features: Path) -> None:
        """`work` says all that the answers depend on; a journal of other work is thrown away.

        `features` is the folder of features, which journals of one bag share; the same picture has the same ones.

        Raises DataError when it cannot be written.
        """
        self._path, self._features, self._said = path, features, dict[str, PlaceMatch]()
        try:
            features.mkdir(parents=True, exist_ok=True)
            if self._is_of(work):
                self._said = self._recall()
            else:
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir(parents=True)
                (path / "work.json").write_text(json.dumps(work), encoding="utf-8")
            self._lines: IO[str] = (path / "matches.jsonl").open("a", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write to {path}: {error.strerror}") from error
        self.recalled = len(self._said)

    def close(self, *, remove: bool = False) -> None:
        """The work is over, for now or (`remove`) for good."""
        self._lines.close()
        if remove:
            shutil.rmtree(self._path, ignore_errors=True)

    def networks(self, networks: Networks) -> JournaledNetworks:
        """The same networks, remembering."""
        extractor = cast("Extractor", RememberingExtractor(networks.extractor, self._features))
        return JournaledNetworks(extractor, networks.scorer, networks.calibration, journal=self, asked=Counter())

    def match(self, key: str) -> PlaceMatch | None:
        """What was said before."""
        return self._said.get(key)

    def remember(self, key: str, match: PlaceMatch) -> PlaceMatch:
        """Keep it, and give it back as it will be recalled: to the last bit the same. Raises DataError."""
        query = Query(key, match.stamp_ns, Outcome.ANSWERED, match=match)
        cells = [key, str(match.stamp_ns), match.state.value, match.stage_ms, [*rows.prediction_rows(query)]]
        line = json.dumps(cells)
        try:
            self._lines.write(line + "\n")
            self._lines.flush()
        except OSError as error:
            raise DataError(f"cannot write to {self._path}: {error.strerror}") from error
        return _read_line(line)[1]

    def _is_of(self, work: dict[str, Any]) -> bool:
        try:
            return bool(json.loads((self._path / "work.json").read_text(encoding="utf-8")) == work)
        except (OSError, ValueError):
            return False

    def _recall(self) -> dict[str, PlaceMatch]:
        file = self._path / "matches.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        if lines and not lines[-1].endswith("\n"):
            file.write_text("".join(lines[:-1]), encoding="utf-8")
            lines.pop()
        return dict(_read_line(line) for line in lines)


def _read_line(line: str) -> tuple[str, PlaceMatch]:
    try:
        key, stamp_ns, state, stage_ms, table = json.loads(line)
        cells = (rows.Row(dict(zip(rows.PREDICTIONS, row, strict=True))) for row in table)
        return key, PlaceMatch(int(stamp_ns), State(state), tuple(rows.to_candidate(row) for row in cells), stage_ms)
    except (ValueError, TypeError) as error:
        raise DataError(f"the work that an interrupted replay left is damaged ({error}): give --restart") from error


def remembering(networks: Networks, path: Path) -> Networks:
    """The same networks; the features of each picture are kept in a folder for the next time. Raises DataError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {path}: {error.strerror}") from error
    extractor = cast("Extractor", RememberingExtractor(networks.extractor, path))
    return dataclasses.replace(networks, extractor=extractor)


class RememberingExtractor:
    """The features of a picture, from disk when they were computed before."""

    def __init__(self, extractor: Extractor, path: Path) -> None:
        self._extractor, self._path = extractor, path
        self.spec, self.device = extractor.spec, extractor.device
        self.last: Features | None = None

    def __call__(self, image: NDArray[np.uint8]) -> Features:
        """Raises ImageError as the extractor does."""
        file = self._path / f"{hashlib.sha256(image.tobytes()).hexdigest()}.npz"
        features = _read_features(file) if file.exists() else None
        if features is None:
            features = self._extractor(image)
            draft = file.with_suffix(".part.npz")
            try:
                known = {each.name: getattr(features, each.name) for each in dataclasses.fields(Features)}
                np.savez(draft, **{name: value for name, value in known.items() if value is not None})
                draft.replace(file)
            except OSError as error:
                raise DataError(f"cannot write to {self._path}: {error.strerror}") from error
        self.last = features
        return features


def _read_features(file: Path) -> Features | None:
    """None for a file that was cut."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            width, height = arrays["image_size"].tolist()
            return Features(**(dict(arrays) | {"image_size": (width, height)}))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


@dataclasses.dataclass(frozen=True, eq=False)
class JournaledNetworks(Networks):
    """Networks that look into the journal first."""

    journal: Journal = dataclasses.field(kw_only=True)
    asked: Counter[int] = dataclasses.field(kw_only=True)  # per stamp: the session first, then the prebuilt map

    def find(
        self,
        view: View,
        stamp_ns: int,
        places: Places,
        config: Config,
        watch: Stopwatch,
        *,
        before: int | None = None,
        expected: Sequence[int] = (),
        with_geometry: bool = True,
        drive: Drive | None = None,
        allowance: Allowance = UNLIMITED,
    ) -> PlaceMatch:
        """As `Networks.find`."""
        key = f"{stamp_ns} {self.asked[stamp_ns]}"
        self.asked[stamp_ns] += 1
        match = self.journal.match(key)
        if match is None:
            match = super().find(
                view,
                stamp_ns,
                places,
                config,
                watch,
                before=before,
                expected=expected,
                with_geometry=with_geometry,
                drive=drive,
                allowance=allowance,
            )
            match = self.journal.remember(key, match)
        return match
