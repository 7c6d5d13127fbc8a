"""Training, start to end: sources -> pairs -> loop -> weights and metrics."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from etr_ros import rerank, weights
from etr_ros.config import Config
from etr_ros.errors import ConfigError
from etr_ros.etr import ETR, EtrConfig
from etr_ros.features.extractor import LOCAL_NETWORKS
from etr_ros.train import loop, pairs
from etr_ros.train.calibrating import calibrated
from etr_ros.train.curves import write_curves
from etr_ros.train.prepare import hold_out, open_sources
from etr_ros.train.settings import TrainConfig
from etr_ros.train.validation import Validation, judgements, validate, validation_cases

Show = Callable[..., None]  # (stage, done, total, note="")


@dataclass(frozen=True)
class Settings:
    """What `etr train` was asked for. Without `validation`, a fifth of the sequences of `data` is held out for it.

    `test` sources judge the result beside what it started from; `topics` are the image and pose topic of bags.
    """

    data: Sequence[Path]
    output: Path
    validation: Sequence[Path] = ()
    test: Sequence[Path] = ()
    model: str = "etr-s"
    start: str | None = None
    copies: int = 1
    steps: int = 4000
    seed: int = 0
    patience: int = TrainConfig.patience
    topics: tuple[str, str | None] = ("", None)
    cache: Path | None = None  # default: in `output`
    judge: str = ""  # extractor whose locals tell which pictures show the same place; default: that of the config


@dataclass(frozen=True)
class Result:
    """The weight file that was written, what it reached, and what is said of it on places that it never saw.

    `before` is what the weights that it started from reach on the same places; without any, retrieval alone counts.
    `tested_on` names the places: the test sources, else the validation ones.
    """

    weights: Path
    report: loop.Report
    after: Validation
    before: Validation | None
    tested_on: str

    @property
    def is_better(self) -> bool:
        """Whether the order is better than that of retrieval and, as order and detector, than before."""
        beats_retrieval = self.after.recall_at_1_etr > self.after.recall_at_1_retrieval
        return beats_retrieval and (self.before is None or self.after.is_better_than(self.before))


def train_etr(settings: Settings, config: Config, show: Show) -> Result:
    """Train, then write `etr.safetensors`, `metrics.json` and `curves.png` into `settings.output`.

    Raises DataError, MapError or WeightsError before the first step when sources or start weights cannot be used.
    """
    settings.output.mkdir(parents=True, exist_ok=True)
    start = weights.resolve(settings.start) if settings.start else None
    model_config, start_weights = model_for(settings.model, config), None
    if start:
        model_config, start_weights = started_from(start, model_config)
    sets = _pair_sets(settings, config, model_config, show)
    train_config = TrainConfig(steps=settings.steps, seed=settings.seed, patience=settings.patience)
    best = "no validation yet"

    def progress(step: int, loss: float, measured: Validation | None) -> None:
        nonlocal best
        if measured:
            best = f"R@1 {measured.recall_at_1_retrieval:.3f} -> {measured.recall_at_1_etr:.3f}"
        show("train", step, settings.steps, f"loss {loss:.3f}, {best}")

    checkpoint = settings.output / "checkpoint.pt"
    model, report = loop.train(
        model_config, sets["train"], sets["validation"], train_config, checkpoint, progress, start_weights
    )
    held = "test" if "test" in sets else "validation"
    cases = validation_cases(sets[held], train_config)
    before = None
    if start_weights is not None:
        initial = ETR(model_config)
        initial.load_state_dict(start_weights)
        before = validate(initial, sets[held], cases)
    after = validate(model, sets[held], cases)
    path = settings.output / "etr.safetensors"
    chosen_on = sets["validation"]
    calibration = calibrated(judgements(model, chosen_on, validation_cases(chosen_on, train_config)))
    rerank.save(path, model, calibration, {"seed": str(settings.seed), "steps": str(settings.steps)})
    result = Result(path, report, after, before, held)
    _write_metrics(settings, model, result, sets)
    return result


def _pair_sets(settings: Settings, config: Config, model: EtrConfig, show: Show) -> dict[str, pairs.PairSet]:
    """Pairs of the training, validation and, if there is one, test sources."""
    cache = settings.cache or settings.output / "cache"
    parts = {"train": settings.data, "validation": settings.validation, "test": settings.test}
    opened = {
        name: open_sources(paths, cache, config, settings.copies, settings.seed, show, settings.topics)
        for name, paths in parts.items()
        if paths
    }
    if settings.judge:
        judge, at = config.replace(**{"extractor.name": settings.judge}), cache.with_name(f"cache-{settings.judge}")
        for name, sources in opened.items():
            judging = open_sources(parts[name], at, judge, 1, settings.seed, show, settings.topics)
            opened[name] = [replace(one, judge=two.place_map) for one, two in zip(sources, judging, strict=True)]
    if "validation" not in opened:
        opened["train"], opened["validation"] = hold_out(opened["train"], settings.seed)
    return {
        name: pairs.collect(sources, model.max_locals, show, drop_aliased=name == "train")
        for name, sources in opened.items()
    }


def model_for(name: str, config: Config) -> EtrConfig:
    """The shape of a new model for the locals of the configured extractor."""
    extractor = config.extractor.name
    dim = LOCAL_NETWORKS[extractor].descriptor_dim
    scales = len(LOCAL_NETWORKS[extractor].image_scales)
    if name == "paper":
        return dataclasses.replace(EtrConfig.paper_s(), extractor=extractor, local_dim=dim, scales=scales)
    etr_s = EtrConfig(extractor, dim, 0, scales)
    if name == "etr-d":
        return dataclasses.replace(etr_s, global_dim=_own_global_dim(extractor), max_locals=512)
    if name == "etr-s-small":
        return dataclasses.replace(etr_s, max_locals=256, max_tokens=48, blocks=1, width=32, ffn_width=64)
    return etr_s


def _own_global_dim(extractor: str) -> int:
    dim = getattr(LOCAL_NETWORKS[extractor], "global_dim", None)
    if dim is None:
        raise ConfigError(
            f"etr-d reads DELG's global descriptor, {extractor} has none: set extractor.name to delg-lite"
        )
    return int(dim)


def started_from(path: Path, wanted: EtrConfig) -> tuple[EtrConfig, dict[str, Tensor]]:
    """The shape and the tensors of ETR weights, to go on with the locals of the extractor of `wanted`.

    Weights that read how locals match, not the locals themselves, can start from those of another extractor: its
    scales all begin as the first one, and a global descriptor that they did not read before begins as saying nothing.
    Raises ConfigError where that cannot be, WeightsError.
    """
    config, tensors = rerank.read_header(path)[0], weights.load_tensors(path)
    if config.extractor == wanted.extractor:
        return config, tensors
    if config.tokens != "correlation" or config.global_dim:
        raise ConfigError(f"{path} was trained on {config.extractor} features: set extractor.name to that")
    tensors["tokens.scale.weight"] = tensors["tokens.scale.weight"][:1].repeat(wanted.scales, 1)
    taken = {name: getattr(wanted, name) for name in ("extractor", "local_dim", "scales", "global_dim", "max_locals")}
    if wanted.global_dim:
        tensors["tokens.globals.weight"] = torch.zeros(config.width, wanted.global_dim)
        tensors["tokens.globals.bias"] = torch.zeros(config.width)
    return dataclasses.replace(config, **taken), tensors


def _write_metrics(settings: Settings, model: ETR, result: Result, sets: dict[str, pairs.PairSet]) -> None:
    metrics = {
        "settings": {
            "model": settings.model,
            "start": settings.start,
            "copies": settings.copies,
            "steps": settings.steps,
            "seed": settings.seed,
        },
        "sources": [p.name for p in settings.data],
        "validation_sources": [p.name for p in settings.validation] or "held-out sequences",
        "test_sources": [p.name for p in settings.test],
        "parameters": sum(p.numel() for p in model.parameters()),
        "pictures": len(sets["train"].locals),
        "anchors": {name: len(pair_set.anchors) for name, pair_set in sets.items()},
        "best_step": result.report.best_step,
        "best": dataclasses.asdict(result.report.best),
        "tested_on": result.tested_on,
        "before": result.before and dataclasses.asdict(result.before),
        "after": dataclasses.asdict(result.after),
        "is_better": result.is_better,
        "history": result.report.history,
    }
    draft = settings.output / "metrics.part"
    draft.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    draft.replace(settings.output / "metrics.json")
    write_curves(settings.output / "curves.png", result.report.history)
