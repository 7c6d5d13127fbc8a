"""Re-ranking: one score per retrieved candidate, from local features. Every re-ranker is a `Scorer`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray

from etr_ros import verify, weights
from etr_ros.device_memory import in_batches_that_fit
from etr_ros.errors import ConfigError, WeightsError
from etr_ros.etr import ETR, EtrConfig
from etr_ros.features.base import half_on_cuda
from etr_ros.side_by_side import in_parts
from etr_ros.tokens import Locals
from etr_ros.types import Features, FloatArray

GEOMETRIC = "magsac"
NONE = "none"
PAIRS_AT_ONCE = 10  # that a processor core reads


@dataclass(frozen=True)
class Calibration:
    """Match probability = sigmoid(slope * score + offset) (Platt scaling), fitted on validation places.

    The score of a candidate that geometry confirms is higher by `per_inlier` for each of its matches that agree.
    """

    slope: float = 1.0
    offset: float = 0.0
    per_inlier: float = 0.0

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """Scores (K,) -> probabilities (K,) in [0, 1]."""
        logits = np.clip(self.slope * scores + self.offset, -60, 60)
        probabilities: FloatArray = (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
        return probabilities


# Of inlier counts of 512 XFeat locals, on the validation places of the shipped ETR weights, each query asked in a map
# with its place and in one without (docs/results.md)
INLIER_CALIBRATION = Calibration(slope=0.0492, offset=-4.872)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a re-ranker says of K candidates; higher is better. Fields that it does not compute are None."""

    values: FloatArray  # (K,)
    probabilities: FloatArray | None = None  # (K,)
    inliers: NDArray[np.int64] | None = None  # (K,)


class Scorer(Protocol):
    """A re-ranker."""

    def __call__(self, query: Features, candidates: Sequence[Features]) -> Scores: ...


def load(name: str, extractor: str, device: torch.device, max_locals: int = 0) -> Scorer | None:
    """The re-ranker `name`: a registered name, a path to weights, "magsac", or "none" (gives None).

    A registered name such as "etr-s" stands for the weights trained on the locals of `extractor`; those of DELG, which
    read its global descriptor too, are "etr-d", and also found as "etr-s", the default.
    Raises WeightsError, or ConfigError when the weights read other features than `extractor`'s.
    """
    if name == NONE:
        return None
    if name == GEOMETRIC:
        return geometric_scorer
    path = _weight_file(name, extractor)
    scorer = EtrScorer.from_file(path, device, max_locals)
    if scorer.model.config.extractor != extractor:
        raise ConfigError(
            f"re-ranker {path.name} was trained on {scorer.model.config.extractor} features, not {extractor}: "
            "choose another rerank.name or extractor.name"
        )
    return scorer


def identity(name: str, extractor: str) -> str:
    """The name, and for weights the hash of their file: what a calibration of the scores goes with.

    Raises WeightsError or ConfigError as `load`.
    """
    if name in (NONE, GEOMETRIC):
        return name
    path = _weight_file(name, extractor)
    try:
        return f"{path.stem} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    except OSError as error:
        raise WeightsError(f"cannot read the weights {path}: {error.strerror}") from error


def _weight_file(name: str, extractor: str) -> Path:
    return Path(name) if name.endswith(".safetensors") else _registered(name, extractor)


def _registered(name: str, extractor: str) -> Path:
    known = {entry.name for entry in weights.REGISTRY}
    registered = f"{name}-{extractor}"
    if name == "etr-s" and registered not in known:
        registered = f"etr-d-{extractor}"  # of extractors with a global descriptor of their own
    if registered not in known:
        raise ConfigError(
            f"there are no '{name}' weights for {extractor} features: set rerank.name to {GEOMETRIC} or {NONE}, "
            "or to a file that `etr train` made"
        )
    return weights.resolve(registered)


def geometric_scorer(query: Features, candidates: Sequence[Features]) -> Scores:
    """Classic re-ranking: the number of geometrically verified matches."""
    found = in_parts(lambda each: [len(verify.inliers(query, candidate)) for candidate in each], candidates, 1)
    counts = np.array(found, np.int64)
    values = counts.astype(np.float32)
    return Scores(values, INLIER_CALIBRATION.probabilities(values), counts)


class EtrScorer:
    """ETR as a re-ranker: on a GPU the query and all candidates in one batch, on a CPU in small ones, which stay in its
    cache and of which each thread takes some."""

    def __init__(self, model: ETR, calibration: Calibration, device: torch.device, max_locals: int = 0) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.calibration = calibration
        self.device = device
        self.max_locals = max_locals or model.config.max_locals

    @staticmethod
    def from_file(path: Path, device: torch.device, max_locals: int = 0) -> EtrScorer:
        """Raises WeightsError when the file is damaged or is not an ETR."""
        config, calibration = read_header(path)
        model = ETR(config)
        weights.load_into(model, path)
        return EtrScorer(model, calibration, device, max_locals)

    def __call__(self, query: Features, candidates: Sequence[Features]) -> Scores:
        if not candidates:
            return Scores(np.empty(0, np.float32), np.empty(0, np.float32))
        scores = in_batches_that_fit(lambda each: self._all_logits(query, each), candidates, self._to_cpu, "re-ranking")
        values = np.array(scores, np.float32)
        return Scores(values, self.calibration.probabilities(values))

    def _all_logits(self, query: Features, candidates: Sequence[Features]) -> list[float]:
        at_once = PAIRS_AT_ONCE if self.device.type == "cpu" else len(candidates)
        return in_parts(lambda each: self._logits(query, each), candidates, at_once)

    @torch.inference_mode()
    def _logits(self, query: Features, candidates: Sequence[Features]) -> list[float]:
        one = collate([query], self.max_locals).to(self.device)
        batch = collate(candidates, self.max_locals).to(self.device)
        with half_on_cuda(self.device):
            logits: list[float] = self.model(one.expand(len(batch)), batch).float().tolist()
        return logits

    def _to_cpu(self) -> None:
        self.device = torch.device("cpu")
        self.model.to(self.device)

    def confirm(
        self,
        query: Features,
        candidates: Sequence[Features],
        values: FloatArray,
        matches: Sequence[NDArray[np.int64]] | None = None,
    ) -> Scores:
        """Scores (K,) of candidates that geometry had a look at, from their `values` (K,) of before; `matches` (M, 2)
        are the mutual ones with each where they are known.

        Verification tells apart what ETR alone confuses; for the few best it costs little.
        """
        known = [None] * len(candidates) if matches is None else matches
        pairs = list(zip(candidates, known, strict=True))
        found = in_parts(lambda each: [len(verify.inliers(query, *pair)) for pair in each], pairs, 1)
        counts = np.array(found, np.int64)
        confirmed = (values + self.calibration.per_inlier * counts).astype(np.float32)
        return Scores(confirmed, self.calibration.probabilities(confirmed), counts)


def collate(pictures: Sequence[Features], max_locals: int) -> Locals:
    """The strongest `max_locals` locals of each picture, padded to the longest, as ETR reads them."""
    counts = np.array([min(len(picture), max_locals) for picture in pictures])
    size, length = len(pictures), max(1, int(counts.max()))
    descriptors = np.zeros((size, length, pictures[0].descriptors.shape[1]), np.float32)
    keypoints = np.zeros((size, length, 2), np.float32)
    scales = np.zeros((size, length), np.int64)
    for row, (picture, count) in enumerate(zip(pictures, counts.tolist(), strict=True)):
        descriptors[row, :count] = picture.descriptors[:count]
        keypoints[row, :count] = picture.keypoints[:count]
        scales[row, :count] = picture.scales[:count]
    xy = centred(keypoints, np.array([[picture.image_size] for picture in pictures], np.float32))
    mask = np.arange(length) < counts[:, None]
    global_descriptors = np.stack([picture.global_descriptor for picture in pictures])
    return Locals(*(torch.from_numpy(x) for x in (descriptors, xy, scales, mask, global_descriptors)))


def centred(keypoints: FloatArray, image_size: tuple[int, int] | FloatArray) -> FloatArray:
    """Pixels (..., 2) of pictures of a size (2,) or (..., 2) -> units of half the longer side with the origin in the
    centre."""
    size = np.asarray(image_size, np.float32)
    half_side = size.max(axis=-1, keepdims=True) / 2
    points: FloatArray = ((keypoints + 0.5 - size / 2) / half_side).astype(np.float32)
    return points


def save(path: Path, model: ETR, calibration: Calibration, notes: dict[str, str]) -> None:
    """Write a model with its configuration and calibration in the header of one safetensors file."""
    header = {
        "kind": "etr",
        "config": json.dumps(dataclasses.asdict(model.config)),
        "calibration": json.dumps(dataclasses.asdict(calibration)),
    }
    weights.save_tensors(path, model.state_dict(), header | notes)


def read_notes(path: Path) -> dict[str, str]:
    """What `save` was given to note in an ETR weight file. Raises WeightsError."""
    read_header(path)
    with safetensors.safe_open(path, "pt") as file:
        return {key: value for key, value in file.metadata().items() if key not in ("kind", "config", "calibration")}


def read_header(path: Path) -> tuple[EtrConfig, Calibration]:
    """The configuration and calibration inside an ETR weight file. Raises WeightsError."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
        if header.get("kind") != "etr":
            raise WeightsError(f"{path} holds no ETR: give a file that `etr train` wrote")
        config = {"consistent": False} | json.loads(header["config"])  # a file that does not say so was made without
        return EtrConfig(**config), Calibration(**json.loads(header["calibration"]))
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable ETR weight file: {error}") from error
