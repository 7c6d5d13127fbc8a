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
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from etr_ros.errors import DataError, WeightsError
from etr_ros.etr import ETR, EtrConfig, Locals
from etr_ros.rerank import Calibration
from etr_ros.train.pairs import PairSet


@dataclass(frozen=True)
class TrainConfig:
    """How long and how to train. A step sees `anchors` groups of one positive and `negatives` negatives."""

    steps: int = 4000
    anchors: int = 12
    negatives: int = 3
    hard_share: float = 0.7  # of the negatives, from the look-alikes; the rest from anywhere else
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    warmup_steps: int = 200
    seed: int = 0
    validate_every: int = 250
    validation_queries: int = 300
    top_k: int = 20


@dataclass(frozen=True)
class Validation:
    """Recall@1 among the `top_k` most similar of positives and look-alikes: in retrieval order and after re-ranking."""

    queries: int
    recall_at_1_retrieval: float
    recall_at_1_etr: float
    loss: float
    calibration: Calibration

    def is_better_than(self, other: Validation) -> bool:
        """By Recall@1 after re-ranking; ties by the smaller loss."""
        return (self.recall_at_1_etr, -self.loss) > (other.recall_at_1_etr, -other.loss)


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
) -> tuple[ETR, Report]:
    """Train an ETR and return the weights with the best validation Recall@1 (ties: the smaller loss).

    Goes on from `checkpoint` when that file exists; start from `start` weights otherwise, when given. Batches depend on
    the seed and the step only, so that an interrupted run ends as an uninterrupted one does.
    Raises DataError when the loss is not finite; the last checkpoint then holds the last good weights.
    """
    torch.manual_seed(config.seed)
    model = ETR(model_config)
    if start:
        model.load_state_dict(start)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
    state = _Progress(model.state_dict())
    if checkpoint.exists():
        state = _resume(checkpoint, model_config, config, model, optimizer, schedule)
    cases = validation_cases(validation, config)
    for step in range(state.step, config.steps):
        rows_a, rows_b, labels = sample(pairs, config, step)
        model.train()
        logits = model(_float(pairs.locals.select(rows_a)), _float(pairs.locals.select(rows_b)))
        loss = pair_loss(logits, labels, config)
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
        measured = None
        if (step + 1) % config.validate_every == 0 or step + 1 == config.steps:
            measured = validate(model, validation, cases)
            state.note(step + 1, loss.item(), measured, model)
            _save(checkpoint, model_config, config, state, model, optimizer, schedule)
        progress(step + 1, loss.item(), measured)
    if state.best is None:
        raise DataError(f"nothing to train: {checkpoint} has already reached {state.step} steps without a validation")
    model.load_state_dict(state.best_weights)
    return model, Report(state.best_step, state.best, state.history)


def sample(pairs: PairSet, config: TrainConfig, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the pictures on both sides and labels: `anchors` groups of `1 + negatives` pairs, the positive first."""
    rng = np.random.default_rng((config.seed, step))
    anchors = rng.choice(pairs.anchors, config.anchors)
    rows_a, rows_b, labels = [], [], []
    for anchor in anchors:
        partners = [rng.choice(pairs.positives[anchor])]
        for _ in range(config.negatives):
            pool = pairs.lookalikes[anchor]
            if rng.random() > config.hard_share:
                pool = pairs.lookalikes[rng.choice(pool)]  # a look-alike of a look-alike is anywhere
                pool = pool[~np.isin(pool, pairs.positives[anchor]) & (pool != anchor)]
                pool = pool if len(pool) else pairs.lookalikes[anchor]
            partners.append(rng.choice(pool))
        for k, partner in enumerate(partners):
            rows_a.append(rng.choice(pairs.copies[anchor]))
            rows_b.append(rng.choice(pairs.copies[partner]))
            labels.append(float(k == 0))
    return torch.tensor(np.array(rows_a)), torch.tensor(np.array(rows_b)), torch.tensor(labels)


def pair_loss(logits: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """Binary cross-entropy over the pairs, positives and negatives weighing alike, plus cross-entropy of the positive
    within its group: the first makes the score a probability, the second the order right."""
    weights = torch.where(labels > 0, float(config.negatives), 1.0)
    same_place = F.binary_cross_entropy_with_logits(logits, labels, weights)
    groups = logits.view(config.anchors, 1 + config.negatives)
    order = F.cross_entropy(groups, torch.zeros(config.anchors, dtype=torch.long))
    return same_place + 0.5 * order


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine to 1 % of the learning rate."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One validation query: its row, the rows of its candidates in retrieval order, and which of them are right."""

    query: int
    candidates: NDArray[np.int64]
    right: NDArray[np.bool_]


def validation_cases(pairs: PairSet, config: TrainConfig) -> list[Case]:
    """Queries are changed copies where there are any; candidates are originals. Raises DataError when there is none."""
    anchors = pairs.anchors
    spread = np.linspace(0, len(anchors) - 1, min(len(anchors), config.validation_queries)).astype(int)
    cases = []
    for anchor in anchors[np.unique(spread)]:
        pool = np.concatenate([pairs.positives[anchor], pairs.lookalikes[anchor]])
        right = np.arange(len(pool)) < len(pairs.positives[anchor])
        query = int(pairs.copies[anchor][-1])
        vector = pairs.locals.global_descriptor[query].numpy()  # type: ignore[index]
        order = np.argsort(-(pairs.globals[pool] @ vector), kind="stable")[: config.top_k]
        if right[order].any():
            rows = np.array([pairs.copies[p][0] for p in pool[order]], np.int64)
            cases.append(Case(query, rows, right[order]))
    if not cases:
        raise DataError("the validation sources hold no query whose place is retrieved: give more of them")
    return cases


def validate(model: ETR, pairs: PairSet, cases: list[Case]) -> Validation:
    """Re-rank every case with `model` and fit the calibration to its scores."""
    model.eval()
    first_right, scores, labels = 0, [], []
    for case in cases:
        query = _float(pairs.locals.select(slice(case.query, case.query + 1)))
        candidates = _float(pairs.locals.select(torch.from_numpy(case.candidates)))
        with torch.inference_mode():
            logits = model(query.expand(len(candidates)), candidates).numpy()
        first_right += bool(case.right[int(logits.argmax())])
        scores.append(logits)
        labels.append(case.right)
    x, y = np.concatenate(scores), np.concatenate(labels).astype(np.float32)
    return Validation(
        queries=len(cases),
        recall_at_1_retrieval=float(np.mean([case.right[0] for case in cases])),
        recall_at_1_etr=first_right / len(cases),
        loss=float(F.binary_cross_entropy_with_logits(torch.from_numpy(x), torch.from_numpy(y))),
        calibration=fit_calibration(x, y),
    )


def fit_calibration(scores: NDArray[np.float32], labels: NDArray[np.float32]) -> Calibration:
    """Platt scaling by maximum likelihood with Platt's smoothed targets; the slope is kept positive."""
    x, y = torch.from_numpy(scores).double(), torch.from_numpy(labels).double()
    right, wrong = y.sum(), (1 - y).sum()
    targets = torch.where(y > 0, (right + 1) / (right + 2), 1 / (wrong + 2))
    mean, deviation = x.mean(), x.std().clamp_min(1e-6)
    parameters = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)  # log slope and offset, standardised
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = parameters[0].exp() * (x - mean) / deviation + parameters[1]
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope = float(parameters[0].detach().exp() / deviation)
    return Calibration(slope, float(parameters[1].detach()) - slope * float(mean))


class _Progress:
    """What a checkpoint holds besides the model and the optimizer."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.step = 0
        self.best: Validation | None = None
        self.best_step = 0
        self.best_weights = {name: tensor.clone() for name, tensor in weights.items()}
        self.history: list[dict[str, float]] = []

    def note(self, step: int, loss: float, measured: Validation, model: ETR) -> None:
        self.step = step
        self.history.append(
            {
                "step": step,
                "train_loss": loss,
                "validation_loss": measured.loss,
                "recall_at_1_retrieval": measured.recall_at_1_retrieval,
                "recall_at_1_etr": measured.recall_at_1_etr,
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
    optimizer: Any,
    schedule: Any,
) -> None:
    draft = path.with_suffix(".part")
    best = state.best
    torch.save(
        {
            "configs": json.dumps([asdict(model_config), asdict(config)]),
            "step": state.step,
            "best": json.dumps(asdict(best)) if best else "",
            "best_step": state.best_step,
            "best_weights": state.best_weights,
            "history": json.dumps(state.history),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
        },
        draft,
    )
    draft.replace(path)


def _resume(
    path: Path, model_config: EtrConfig, config: TrainConfig, model: ETR, optimizer: Any, schedule: Any
) -> _Progress:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise WeightsError(f"{path} is not a readable checkpoint ({error}): remove it to start anew") from error
    if saved.get("configs") != json.dumps([asdict(model_config), asdict(config)]):
        raise WeightsError(f"{path} is of a run with other settings: remove it, or give another --output")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    schedule.load_state_dict(saved["schedule"])
    state = _Progress(saved["best_weights"])
    state.step, state.best_step, state.history = saved["step"], saved["best_step"], json.loads(saved["history"])
    if saved["best"]:
        best = json.loads(saved["best"])
        state.best = Validation(**best | {"calibration": Calibration(**best["calibration"])})
    return state


def _float(batch: Locals) -> Locals:
    return Locals(batch.descriptors.float(), batch.xy, batch.scales, batch.mask, batch.global_descriptor)
