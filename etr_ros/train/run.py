"""Training, start to end: sources -> pairs -> loop -> weights and metrics."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from etr_ros import rerank, weights
from etr_ros.config import Config
from etr_ros.errors import ConfigError
from etr_ros.etr import ETR, EtrConfig
from etr_ros.features.extractor import LOCAL_NETWORKS
from etr_ros.train import loop, pairs
from etr_ros.train.prepare import open_sources

Show = Callable[..., None]  # (stage, done, total, note="")


@dataclass(frozen=True)
class Settings:
    """What `etr train` was asked for."""

    data: Sequence[Path]
    validation: Sequence[Path]
    output: Path
    model: str = "etr-s"
    start: str | None = None
    copies: int = 1
    steps: int = 4000
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """The weight file that was written, and what it reached."""

    weights: Path
    report: loop.Report


def train_etr(settings: Settings, config: Config, show: Show) -> Result:
    """Train, then write `etr.safetensors` and `metrics.json` into `settings.output`.

    Raises DataError, MapError or WeightsError before the first step when sources or start weights cannot be used.
    """
    settings.output.mkdir(parents=True, exist_ok=True)
    start = weights.resolve(settings.start) if settings.start else None
    model_config = rerank.read_header(start)[0] if start else model_for(settings.model, config)
    if model_config.extractor != config.extractor.name:
        raise ConfigError(f"{start} was trained on {model_config.extractor} features: set extractor.name to that")
    cache = settings.output / "cache"
    train_set, validation_set = (
        pairs.collect(
            open_sources(paths, cache, config, settings.copies, settings.seed, show), model_config.max_locals, show
        )
        for paths in (settings.data, settings.validation)
    )
    train_config = loop.TrainConfig(steps=settings.steps, seed=settings.seed)
    best = "no validation yet"

    def progress(step: int, loss: float, measured: loop.Validation | None) -> None:
        nonlocal best
        if measured:
            best = f"R@1 {measured.recall_at_1_retrieval:.3f} -> {measured.recall_at_1_etr:.3f}"
        show("train", step, settings.steps, f"loss {loss:.3f}, {best}")

    model, report = loop.train(
        model_config,
        train_set,
        validation_set,
        train_config,
        settings.output / "checkpoint.pt",
        progress,
        weights.load_tensors(start) if start else None,
    )
    return Result(_write(settings, model, report, train_set, validation_set), report)


def model_for(name: str, config: Config) -> EtrConfig:
    """The shape of a new model for the locals of the configured extractor."""
    extractor = config.extractor.name
    dim = LOCAL_NETWORKS[extractor].descriptor_dim
    scales = len(LOCAL_NETWORKS[extractor].image_scales)
    if name == "paper":
        return dataclasses.replace(EtrConfig.paper_s(), extractor=extractor, local_dim=dim, scales=scales)
    etr_s = EtrConfig(extractor, dim, 0, scales)
    if name == "etr-s-small":
        return dataclasses.replace(etr_s, max_tokens=64, width=32, ffn_width=64)
    return etr_s


def _write(
    settings: Settings, model: ETR, report: loop.Report, train_set: pairs.PairSet, validation_set: pairs.PairSet
) -> Path:
    path = settings.output / "etr.safetensors"
    rerank.save(path, model, report.best.calibration, {"seed": str(settings.seed), "steps": str(settings.steps)})
    metrics = {
        "settings": {
            "model": settings.model,
            "start": settings.start,
            "copies": settings.copies,
            "steps": settings.steps,
            "seed": settings.seed,
        },
        "sources": [p.name for p in settings.data],
        "validation_sources": [p.name for p in settings.validation],
        "parameters": sum(p.numel() for p in model.parameters()),
        "pictures": len(train_set.locals),
        "anchors": len(train_set.anchors),
        "validation_anchors": len(validation_set.anchors),
        "best_step": report.best_step,
        "best": dataclasses.asdict(report.best),
        "history": report.history,
    }
    draft = settings.output / "metrics.part"
    draft.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    draft.replace(settings.output / "metrics.json")
    return path
