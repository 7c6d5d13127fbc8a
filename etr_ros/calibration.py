"""From evidence to one probability: a fitted model in a small JSON file, made by `etr_ros.calibration_fit`.

The evidence of a candidate, clipped to the range that was seen and standardised, is summed with fitted weights to a
logit; the probability is its logistic function, or (method "isotonic") read off fitted steps (Zadrozny and Elkan, KDD
2002). A file holds one model for each set of evidence that can be known, and how many false answers per km each
threshold let through.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etr_ros import rerank
from etr_ros.config import Config
from etr_ros.errors import ConfigError
from etr_ros.evidence import Evidence
from etr_ros.types import Candidate

KIND, FORMAT_VERSION = "etr_ros match calibration", 1
METHODS = ("logistic", "isotonic")
FEATURES = tuple(each.name for each in dataclasses.fields(Evidence))
ALWAYS = ("score", "cosine", "margin")
PLACES, LOOPS = "places", "loops"
MAX_BYTES, MAX_STEPS = 1_000_000, 1000

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """Reads F features: all arrays are (F,), `steps` is (S,) logits and (S,) rising probabilities, or None."""

    features: tuple[str, ...]
    low: Array
    high: Array
    mean: Array
    scale: Array
    weights: Array
    bias: float
    steps: tuple[Array, Array] | None = None

    def logits(self, rows: Array) -> Array:
        """(Q, F) -> (Q,)."""
        clipped = np.clip(rows, self.low, self.high)
        return np.asarray((clipped - self.mean) / self.scale @ self.weights + self.bias)

    def probabilities(self, rows: Array) -> Array:
        """(Q, F) -> (Q,)."""
        logits = self.logits(rows)
        if self.steps is None:
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -60, 60))))
        return np.asarray(np.interp(logits, *self.steps))

    def row(self, evidence: Evidence) -> list[float]:
        """What the model reads of it. A margin that is not known, for want of a rival, is the largest."""
        return [math.inf if value is None else value for value in (getattr(evidence, f) for f in self.features)]


@dataclass(frozen=True, eq=False)
class Curve:
    """Of answers at least as probable as each threshold (T,), rising: how many there were, and how many were false."""

    km: float
    thresholds: Array
    answers: NDArray[np.int64]
    false: NDArray[np.int64]

    def threshold(self, max_false_per_km: float) -> float | None:
        """The lowest threshold from which on there are no more false answers than that; None when there is none."""
        allowed = max_false_per_km * self.km
        too_many = np.flatnonzero(self.false > allowed)
        first = int(too_many[-1]) + 1 if len(too_many) else 0
        return float(self.thresholds[first]) if first < len(self.thresholds) else None


@dataclass(frozen=True, eq=False)
class Calibration:
    """All of a calibration file. `facts` are what the fit said about itself: samples, errors, sources."""

    reranker: str
    extractor: str
    method: str
    models: tuple[Model, ...]
    curves: Mapping[str, Curve]
    facts: Mapping[str, Any]
    digest: str = ""

    def probabilities(self, weighed: Sequence[Evidence]) -> list[float]:
        """One for each candidate, by the model that reads most of what is known of it."""
        found = []
        for evidence in weighed:
            known = {name for name in FEATURES if getattr(evidence, name) is not None} | set(ALWAYS)
            model = max((m for m in self.models if known.issuperset(m.features)), key=lambda m: len(m.features))
            found.append(float(model.probabilities(np.array([model.row(evidence)]))[0]))
        return found

    def judge(self, candidates: Sequence[Candidate], weighed: Sequence[Evidence]) -> list[Candidate]:
        """The candidates with their calibrated probability, the most probable first."""
        both = zip(candidates, self.probabilities(weighed), strict=True)
        judged = [dataclasses.replace(candidate, probability=probability) for candidate, probability in both]
        return sorted(judged, key=lambda candidate: -(candidate.probability or 0.0))

    def threshold(self, kind: str, max_false_per_km: float) -> float:
        """The least probability that keeps to so many false places, or loops (`kind`). Raises ConfigError."""
        curve = self.curves.get(kind)
        if curve is None:
            raise ConfigError(
                f"decision.max_false_loops_per_km: the calibration has no false {kind} per km; fit it with `etr "
                f"calibrate` to results {'of loop mode ' if kind == LOOPS else ''}that know the distance driven"
            )
        found = curve.threshold(max_false_per_km)
        if found is None:
            least = curve.false[-1] / curve.km
            raise ConfigError(
                f"decision.max_false_loops_per_km is {max_false_per_km:g}, but the calibration measured no fewer than "
                f"{least:.3g} false {kind} per km, however high the probability: fit it to more data, or allow more"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "reranker": self.reranker,
            "extractor": self.extractor,
            "method": self.method,
            "facts": dict(self.facts),
            "models": [_plain(dataclasses.asdict(model)) for model in self.models],
            "curves": {kind: _plain(dataclasses.asdict(curve)) for kind, curve in self.curves.items()},
        }


def load(config: Config) -> Calibration | None:
    """What `decision.calibration` names; None when it is empty.

    Raises ConfigError when the file cannot be used or was fitted to another re-ranker, WeightsError as `rerank.load`.
    """
    if not config.decision.calibration:
        return None
    path = Path(config.decision.calibration).expanduser()
    reranker = rerank.identity(config.rerank.name, config.extractor.name)
    found = read(path)
    if (found.reranker, found.extractor) == (reranker, config.extractor.name):
        return found
    raise ConfigError(
        f"the calibration {path} was fitted to {found.reranker} on {found.extractor}, not to {reranker} on "
        f"{config.extractor.name}: fit another with `etr calibrate`"
    )


def write(path: Path, calibration: Calibration) -> None:
    """Raises ConfigError when it cannot be written."""
    draft = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(calibration.to_dict(), indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write the calibration {path}: {error.strerror}") from error


def read(path: Path) -> Calibration:
    """Raises ConfigError when the file is missing, or is no calibration that makes sense."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise ValueError("it is too large")
        values = json.loads(data)
        if values.get("kind") != KIND or values.get("format_version") != FORMAT_VERSION:
            raise ValueError("it was not made by `etr calibrate` of this version")
        return _calibration(values, hashlib.sha256(data).hexdigest())
    except OSError as error:
        raise ConfigError(f"cannot read the calibration {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be used as a calibration ({error}): make it with `etr calibrate`") from None


def _calibration(values: Mapping[str, Any], digest: str) -> Calibration:
    models = tuple(_model(each) for each in values["models"])
    if values["method"] not in METHODS or not any(set(model.features) == set(ALWAYS) for model in models):
        raise ValueError("it lacks a known method or the model that reads scores alone")
    texts = str(values["reranker"]), str(values["extractor"]), str(values["method"])
    curves = {str(kind): _curve(each) for kind, each in values["curves"].items()}
    return Calibration(*texts, models, curves, dict(values["facts"]), digest)


def _model(values: Mapping[str, Any]) -> Model:
    features = tuple(map(str, values["features"]))
    if not set(ALWAYS) <= set(features) <= set(FEATURES) or len(set(features)) != len(features):
        raise ValueError("a model reads other evidence than there is")
    arrays = [_numbers(values[name], len(features)) for name in ("low", "high", "mean", "scale", "weights")]
    low, high, mean, scale, weights = arrays
    if not (scale > 0).all() or not (low <= high).all():
        raise ValueError("the scale of a model is not positive, or its range is none")
    steps = values["steps"]
    if steps is not None:
        x, p = _numbers(steps[0]), _numbers(steps[1])
        if len(x) != len(p) or (np.diff(x) < 0).any() or (np.diff(p) < 0).any() or not ((p >= 0) & (p <= 1)).all():
            raise ValueError("the steps of a model are no rising probabilities")
        steps = x, p
    return Model(features, low, high, mean, scale, weights, float(_numbers([values["bias"]], 1)[0]), steps)


def _curve(values: Mapping[str, Any]) -> Curve:
    thresholds = _numbers(values["thresholds"])
    answers, false = (_numbers(values[name], len(thresholds)).astype(np.int64) for name in ("answers", "false"))
    km = float(_numbers([values["km"]], 1)[0])
    if not km > 0 or (np.diff(thresholds) < 0).any() or (false > answers).any() or (false < 0).any():
        raise ValueError("a curve of false answers is none")
    return Curve(km, thresholds, answers, false)


def _numbers(values: Any, count: int | None = None) -> Array:
    array = np.array([float(value) for value in values], np.float64)
    if not np.isfinite(array).all() or not 1 <= len(array) <= MAX_STEPS or count not in (None, len(array)):
        raise ValueError("numbers are missing, too many, or not finite")
    return array


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
