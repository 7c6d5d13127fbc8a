"""The training loop of ETR: batches, loss, validation, checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from etr_ros.errors import DataError, WeightsError
from etr_ros.etr import ETR, EtrConfig
from etr_ros.rerank import Calibration
from etr_ros.train.batches import batch_loss, sample
from etr_ros.train.lookalikes import HARD_POOL
from etr_ros.train.pairs import PairSet
from etr_ros.train.settings import TrainConfig
from etr_ros.train.validation import Validation, validate, validation_cases


@dataclass(frozen=True)
class Report:
    """What a training run reached; `best_step` is the step whose weights were kept."""

    best_step: int
    best: Validation
    history: list[dict[str, float]]


def train(
    model_config: EtrConfig,
    pairs: PairSet,
    validation: PairSet,
    config: TrainConfig,
    checkpoint: Path,
    progress: Callable[[int, float, Validation | None], None],
    start: dict[str, Tensor] | None = None,
    build: Callable[[EtrConfig], ETR] = ETR,
) -> tuple[ETR, Report]:
    """Train an ETR and return the weights with the best validation, see `Validation.is_better_than`; validated and kept
    is a running mean of the weights, which varies less from step to step.

    Ends early after `config.patience` validations without a better one. Goes on from `checkpoint` when that file
    exists; start from `start` weights otherwise, when given. Batches depend on the seed, the step and the difficulties
    in the checkpoint only, so that an interrupted run ends as an uninterrupted one does.
    Raises DataError when the loss is not finite; the last checkpoint then holds the last good weights.
    """
    torch.manual_seed(config.seed)
    model = build(model_config)
    if start:
        model.load_state_dict(start)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
    mean_of = get_ema_multi_avg_fn(config.average_decay)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(model, multi_avg_fn=mean_of)
    state = _Progress(model.state_dict(), np.ones((len(pairs.copies), HARD_POOL), np.float32))
    if checkpoint.exists():
        state = _resume(checkpoint, model_config, config, model, averaged, optimizer, schedule)
    cases = validation_cases(validation, config)
    for step in range(state.step, config.steps):
        if state.is_stale(config):
            break
        batch = sample(pairs, config, step, state.difficulty)
        model.train()
        loss, logits = batch_loss(model, pairs.locals, batch, config, step)
        if not math.isfinite(loss.item()):
            raise DataError(
                f"the loss is not finite at step {step}: lower the learning rate; "
                f"{checkpoint} holds the last good state"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        batch.note_difficulty(state.difficulty, logits)
        measured = None
        if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
            mean: Any = averaged.module
            measured = validate(mean, validation, cases)
            state.note(step + 1, loss.item(), measured, mean)
            _save(checkpoint, model_config, config, state, model, averaged, optimizer, schedule)
        progress(step + 1, loss.item(), measured)
    if state.best is None:
        raise DataError(f"nothing to train: {checkpoint} has already reached {state.step} steps without a validation")
    model.load_state_dict(state.best_weights)
    return model, Report(state.best_step, state.best, state.history)


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine to 1 % of the learning rate."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class _Progress:
    """What a checkpoint holds besides the model and the optimizer."""

    def __init__(self, weights: dict[str, Tensor], difficulty: NDArray[np.float32]) -> None:
        self.step = 0
        self.difficulty = difficulty  # (P, HARD_POOL)
        self.best: Validation | None = None
        self.best_step = 0
        self.best_weights = {name: tensor.clone() for name, tensor in weights.items()}
        self.history: list[dict[str, float]] = []

    def is_stale(self, config: TrainConfig) -> bool:
        """Whether the best validation is `patience` validations ago."""
        since_best = self.step - self.best_step
        return config.patience > 0 and since_best >= config.patience * config.validate_every

    def note(self, step: int, loss: float, measured: Validation, model: ETR) -> None:
        self.step = step
        self.history.append(
            {
                "step": step,
                "train_loss": loss,
                "validation_loss": measured.loss,
                "recall_at_1_retrieval": measured.recall_at_1_retrieval,
                "recall_at_1_etr": measured.recall_at_1_etr,
                "average_precision": measured.average_precision,
                "recall_at_full_precision": measured.recall_at_full_precision,
            }
        )
        if self.best is None or measured.is_better_than(self.best):
            self.best, self.best_step = measured, step
            self.best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _save(
    path: Path,
    model_config: EtrConfig,
    config: TrainConfig,
    state: _Progress,
    model: ETR,
    averaged: AveragedModel,
    optimizer: Any,
    schedule: Any,
) -> None:
    draft = path.with_suffix(".part")
    best = state.best
    torch.save(
        {
            "configs": json.dumps([asdict(model_config), asdict(config)]),
            "step": state.step,
            "difficulty": torch.from_numpy(state.difficulty),
            "best": json.dumps(asdict(best)) if best else "",
            "best_step": state.best_step,
            "best_weights": state.best_weights,
            "history": json.dumps(state.history),
            "model": model.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        },
        draft,
    )
    draft.replace(path)


def _resume(
    path: Path,
    model_config: EtrConfig,
    config: TrainConfig,
    model: ETR,
    averaged: AveragedModel,
    optimizer: Any,
    schedule: Any,
) -> _Progress:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(f"{path} is not a readable checkpoint ({error}): remove it to start anew") from error
    if saved.get("configs") != json.dumps([asdict(model_config), asdict(config)]):
        raise WeightsError(f"{path} is of a run with other settings: remove it, or give another --output")
    model.load_state_dict(saved["model"])
    averaged.load_state_dict(saved["averaged"])
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    state = _Progress(saved["best_weights"], saved["difficulty"].numpy())
    state.step, state.best_step, state.history = saved["step"], saved["best_step"], json.loads(saved["history"])
    if saved["best"]:
        best = json.loads(saved["best"])
        state.best = Validation(**best | {"calibration": Calibration(**best["calibration"])})
    return state
