"""Carry a recipe out: prune, retrain, share, tune, with checkpoints per stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcnn.compression.convert import Trainee, convert, copy_model, prepare
from fastcnn.compression.finetune import History, finetune
from fastcnn.compression.recipe import PruneStage, Recipe, ShareStage, Training
from fastcnn.compression.report import Report, report


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What one stage did: its key, its training history (None for share), the metric after it, seconds."""

    stage: str
    history: History | None
    metric: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RecipeResult:
    """The compressed model, the recipe as run, and what each stage did."""

    model: nn.Module
    recipe: Recipe
    metric_before: float | None
    stages: tuple[StageResult, ...]

    @property
    def report(self) -> Report:
        """One line per layer and method."""
        return report(self.model)

    @property
    def metric(self) -> float | None:
        """What ``evaluate`` says of the compressed model."""
        return self.stages[-1].metric


def run_recipe(
    model: nn.Module,
    recipe: Recipe | str | Path,
    train_loader: Iterable[Any],
    evaluate: Callable[[nn.Module], float] | None = None,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    teacher: nn.Module | None = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = True,
    progress: bool | None = None,
) -> RecipeResult:
    """Compress a model by a recipe.

    Parameters
    ----------
    model : nn.Module
        Left alone.
    recipe : Recipe, name of a shipped one ("deep-compression"), or path of a YAML file
    train_loader : re-iterable of (input, target)
        As in :func:`fastcnn.finetune`.
    evaluate : callable, optional
        ``evaluate(model) -> float``, called before the first and after every stage.
    loss : callable, optional
        Default cross entropy.
    teacher : nn.Module, optional
        For stages with ``distill_weight`` above 0; default the original model.
    checkpoint_dir : path, optional
        Gets ``recipe.yaml`` (replayable) and a folder of checkpoints per training stage. Belongs to one recipe.
    resume : bool
        Go on from those checkpoints.
    progress : bool, optional
        Progress bars on stderr; default only on a terminal.

    Returns
    -------
    RecipeResult

    Raises
    ------
    RecipeError
        For a recipe that cannot be read.
    ValueError, TypeError
        As ``prepare``, ``convert`` and ``finetune`` raise them.
    """
    plan = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    if folder is not None:
        _claim(folder, plan, resume)
    batches = len(train_loader)  # type: ignore[arg-type]  # finetune says so in words if it has no length
    present: nn.Module = copy_model(model)
    before = None if evaluate is None else _evaluate(present, evaluate)
    results: list[StageResult] = []
    for index, stage in enumerate(plan.stages):
        began = time.perf_counter()
        history = None
        if isinstance(stage, PruneStage):
            present = prepare(present, stage.config(batches), plan.layers)
        if isinstance(stage, ShareStage):
            if isinstance(present, Trainee):
                present = convert(present)
            present = convert(present, stage.config(plan.seed), plan.layers)
        if isinstance(stage, Training):
            history = finetune(
                present,
                train_loader,
                epochs=stage.epochs,
                optimizer=stage.optimizer,
                lr=stage.lr,
                weight_decay=stage.weight_decay,
                schedule=stage.lr_schedule,
                loss=loss,
                teacher=(teacher or copy_model(model)) if stage.distill_weight > 0 else None,
                distill_weight=stage.distill_weight,
                checkpoint_dir=None if folder is None else folder / f"{index}-{stage.key}",
                resume=resume,
                progress=progress,
                description=stage.key,
                seed=plan.seed * 1009 + index,
            )
        results.append(
            StageResult(
                stage=stage.key,
                history=history,
                metric=None if evaluate is None else _evaluate(present, evaluate),
                seconds=time.perf_counter() - began,
            )
        )
    if isinstance(present, Trainee):
        present = convert(present)
    return RecipeResult(model=present.train(model.training), recipe=plan, metric_before=before, stages=tuple(results))


def _claim(folder: Path, plan: Recipe, resume: bool) -> None:
    """Write the recipe into its folder; refuse to resume there what another recipe began."""
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "recipe.yaml"
    if resume and written.exists() and Recipe.load(written) != plan:
        raise ValueError(
            f"{folder} holds checkpoints of another recipe (see {written}): use another checkpoint_dir, "
            "or resume=False to overwrite them"
        )
    written.write_text(plan.to_yaml(), encoding="utf-8")


def _evaluate(model: nn.Module, evaluate: Callable[[nn.Module], float]) -> float:
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            return float(evaluate(model))
    finally:
        model.train(was)
