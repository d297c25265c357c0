"""Recipes: a compression path as data. Read, checked key by key, written back replayable."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal

from fastcnn._extras import require
from fastcnn.compression.finetune import SCHEDULES
from fastcnn.compression.yaml_lines import Document, RecipeError
from fastcnn.methods.contract import check_choice, check_count, check_patterns, check_range
from fastcnn.methods.pruning.magnitude import MagnitudeConfig, Overrides
from fastcnn.methods.skips import SKIPS
from fastcnn.methods.vq.scalar import KMeansConfig

VERSION = 1
OptimizerWord = Literal["adam", "adamw", "sgd"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a stage trains: the arguments of ``fastcnn.finetune``.

    ``distill_weight`` above 0 mixes in the original (or the given) model as teacher.
    """

    epochs: int = 1
    optimizer: OptimizerWord = "adam"
    lr: float = 1e-3
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: float = 0.0
    distill_weight: float = 0.0

    def check_training(self) -> None:
        """Raise for a value out of range."""
        check_count("epochs", self.epochs, 0)
        check_choice("optimizer", self.optimizer, ("adam", "adamw", "sgd"))
        check_range("lr", self.lr, 0.0, math.inf)
        check_choice("lr_schedule", self.lr_schedule, SCHEDULES)
        check_range("weight_decay", self.weight_decay, 0.0, math.inf)
        check_range("distill_weight", self.distill_weight, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PruneStage(Training):
    """Magnitude pruning in rounds while training; fields as in MagnitudeConfig, the schedule in rounds and epochs."""

    key: ClassVar[str] = "prune"

    sparsity: float = 0.9
    mode: Literal["layer", "global", "threshold"] = "layer"
    quality: float = 1.0
    overrides: Overrides | Mapping[str, float] = ()
    exclude: tuple[str, ...] = ()
    skip: tuple[str, ...] = SKIPS
    schedule: Literal["linear", "cubic"] = "cubic"
    rounds: int = 1

    def __post_init__(self) -> None:
        self.check_training()
        check_count("rounds", self.rounds, 1)
        check_choice("schedule", self.schedule, ("linear", "cubic"))
        object.__setattr__(self, "overrides", self.config(self.rounds).overrides)

    def config(self, batches: int) -> MagnitudeConfig:
        """Spread the rounds evenly over ``epochs * batches`` steps: one at the start, the last with time to retrain.

        Round i of R (i = 1 ... R) reaches about ``1 - (1 - i/R)^3`` (cubic) or ``i/R`` (linear) of the target.
        """
        every = max(1, self.epochs * batches // self.rounds)
        first = 1 / self.rounds
        return MagnitudeConfig(
            sparsity=self.sparsity,
            mode=self.mode,
            quality=self.quality,
            overrides=self.overrides,
            exclude=self.exclude,
            skip=self.skip,
            schedule=self.schedule if self.rounds > 1 else "oneshot",
            begin=0,
            end=(self.rounds - 1) * every,
            every=every,
            initial=1 - (1 - first) ** 3 if self.schedule == "cubic" else first,
        )


@dataclass(frozen=True, kw_only=True)
class RetrainStage(Training):
    """Training of what survives; masks stay in force."""

    key: ClassVar[str] = "retrain"

    def __post_init__(self) -> None:
        self.check_training()


@dataclass(frozen=True, kw_only=True)
class ShareStage:
    """Weight sharing of the survivors; fields as in KMeansConfig."""

    key: ClassVar[str] = "share"

    clusters: int = 32
    conv_clusters: int | None = None
    algorithm: Literal["lloyd", "optimal"] = "lloyd"
    init: Literal["linear", "quantile", "random"] = "linear"

    def __post_init__(self) -> None:
        self.config(0)

    def config(self, seed: int) -> KMeansConfig:
        """The method's config."""
        return KMeansConfig(
            clusters=self.clusters,
            conv_clusters=self.conv_clusters,
            algorithm=self.algorithm,
            init=self.init,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class TuneStage(Training):
    """Training of centroids (and biases and norms) after sharing."""

    key: ClassVar[str] = "tune"

    def __post_init__(self) -> None:
        self.check_training()


Stage = PruneStage | RetrainStage | ShareStage | TuneStage
_STAGES: dict[str, type[Stage]] = {cls.key: cls for cls in (PruneStage, RetrainStage, ShareStage, TuneStage)}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A compression path: stages in order, on the layers that match.

    At most one prune and one share stage, prune before share; tune only after share.
    """

    stages: tuple[Stage, ...]
    name: str = "recipe"
    layers: tuple[str, ...] = ("*",)
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a string, got {self.name!r}")
        check_count("seed", self.seed, 0)
        object.__setattr__(self, "layers", check_patterns("layers", self.layers))
        if not self.stages:
            raise ValueError("stages is empty: give at least one of prune, retrain, share, tune")
        keys = [stage.key for stage in self.stages]
        for key in ("prune", "share"):
            if keys.count(key) > 1:
                raise ValueError(f"stages has {keys.count(key)} {key} stages: one is allowed (prune has rounds)")
        if "share" in keys and "prune" in keys[keys.index("share") :]:
            raise ValueError("stages prunes after sharing: put prune before share")
        if "tune" in keys and "share" not in keys[: keys.index("tune")]:
            raise ValueError("stages tunes centroids before there are any: put share before tune, or use retrain")

    @classmethod
    def load(cls, recipe: str | Path) -> Recipe:
        """Read a shipped recipe by name, or a YAML file.

        Raises
        ------
        RecipeError
            With file, line, key and what is allowed.
        """
        names = shipped_recipes()
        if str(recipe) in names:
            source = resources.files("fastcnn.compression") / "recipes" / f"{recipe}.yaml"
            return cls.parse(source.read_text(encoding="utf-8"), str(recipe))
        path = Path(recipe)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"recipe {str(recipe)!r} is neither a readable YAML file ({error}) nor a shipped recipe: "
                f"choose from {', '.join(names)}"
            ) from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, source: str = "recipe") -> Recipe:
        """Read a recipe from YAML text; ``source`` names it in errors."""
        document = Document(text, source)
        data = document.value
        if not isinstance(data, dict):
            raise document.error((), "a recipe is a mapping with the keys version, name, seed, layers, stages")
        _known(document, (), data, ("version", "name", "seed", "layers", "stages"))
        if data.get("version") != VERSION:
            raise document.error(("version",), f"{data.get('version')!r} is not supported: allowed is {VERSION}")
        stages = data.get("stages")
        if not isinstance(stages, list):
            raise document.error(("stages",), "must be a list of stages, each one of " + ", ".join(_STAGES))
        made = tuple(_stage(document, i, item) for i, item in enumerate(stages))
        rest = {key: data[key] for key in ("name", "seed", "layers") if key in data}
        try:
            return cls(stages=made, **rest)
        except (ValueError, TypeError) as error:
            raise document.error((str(error).split("=")[0].split(" ")[0],), str(error)) from error

    def to_yaml(self) -> str:
        """Write every value out, defaults too; :meth:`parse` gives back an equal recipe."""
        yaml = require("yaml", extra="compress", purpose="writing a recipe")
        data = {
            "version": VERSION,
            "name": self.name,
            "seed": self.seed,
            "layers": list(self.layers),
            "stages": [{stage.key: _stage_data(stage)} for stage in self.stages],
        }
        return str(yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120))


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("fastcnn.compression") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def _known(document: Document, path: tuple[str | int, ...], data: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in data:
        if key not in allowed:
            raise document.error((*path, key), f"unknown key: allowed are {', '.join(allowed)}")


def _stage(document: Document, index: int, item: object) -> Stage:
    path: tuple[str | int, ...] = ("stages", index)
    if isinstance(item, str):
        item = {item: None}
    if not isinstance(item, dict) or len(item) != 1:
        raise document.error(path, f"a stage is one of {', '.join(_STAGES)} with its settings below it")
    ((key, settings),) = item.items()
    path = (*path, key)
    if key not in _STAGES:
        raise document.error(path, f"unknown stage: allowed are {', '.join(_STAGES)}")
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise document.error(path, f"settings must be a mapping, got {settings!r}")
    fields = tuple(field.name for field in dataclasses.fields(_STAGES[key]))
    _known(document, path, settings, fields)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    build: Any = _STAGES[key]
    try:
        made: Stage = build(**values)
        return made
    except (ValueError, TypeError) as error:
        # The checks begin their message with the field's name.
        field = next((name for name in fields if str(error).startswith(name)), None)
        raise document.error(path if field is None else (*path, field), str(error)) from error


def _stage_data(stage: Stage) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for field in dataclasses.fields(stage):
        value = getattr(stage, field.name)
        if field.name == "overrides":
            value = dict(value)
        data[field.name] = list(value) if isinstance(value, tuple) else value
    return data
