"""Magnitude pruning with retraining, the first stage of Deep Compression.

Wins bytes (and time once sparse kernels or smaller shapes take it up); small weights go, survivors are
retrained in place. Approximate: accuracy is recovered by training, mostly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from fastcnn.methods.contract import (
    EmptyLayerError,
    LayerReport,
    MethodConfig,
    check_choice,
    check_count,
    check_finite,
    check_patterns,
    check_range,
    relative_error,
)
from fastcnn.methods.pruning import masking
from fastcnn.methods.pruning.selection import keep_by_ratio, keep_by_ratio_global, keep_by_threshold
from fastcnn.methods.registry import register_method
from fastcnn.methods.skips import SKIPS, check_skip, exclusions
from fastcnn.methods.storage import sparse_bits

Overrides = tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class MagnitudeConfig(MethodConfig):
    """Magnitude pruning: the smallest weights become exact zeros, on a schedule, survivors are retrained.

    Parameters
    ----------
    sparsity : float
        Final fraction of zeros, in [0, 1): of each layer, or of all of them together (mode "global").
    mode : {"layer", "global", "threshold"}
        "layer" prunes exactly ``round(sparsity * n)`` per layer; "global" ranks all layers together;
        "threshold" prunes ``|w| < quality * std(W)``, std of the layer when pruning began.
    quality : float
        q of mode "threshold", at least 0.
    overrides : mapping of glob pattern to float
        Another sparsity (or quality) for matching layers, the first match counting. Not in mode "global".
    exclude : sequence of glob patterns
        Layers left alone.
    skip : sequence of {"first_conv", "last_linear", "depthwise"}
        Sensitive layers left alone by default; () prunes them too.
    schedule : {"oneshot", "linear", "cubic"}
        How the target grows: at once at ``begin``, or every ``every`` steps from ``initial`` at ``begin``
        to the final value at ``end``.
    begin, end, every : int
        Optimizer steps. A schedule that ends where it begins prunes at once.
    initial : float
        Fraction of the final target at ``begin``, in [0, 1].

    References
    ----------
    Han et al. 2015, arXiv:1506.02626; Zhu and Gupta 2017, arXiv:1710.01878 (cubic schedule). Differs: the
    std of mode "threshold" is that of the trained dense layer throughout; dropout rates are left to the caller.
    """

    method: ClassVar[str] = "magnitude"

    sparsity: float = 0.9
    mode: Literal["layer", "global", "threshold"] = "layer"
    quality: float = 1.0
    overrides: Overrides | Mapping[str, float] = ()
    exclude: tuple[str, ...] | str = ()
    skip: tuple[str, ...] | str = SKIPS
    schedule: Literal["oneshot", "linear", "cubic"] = "oneshot"
    begin: int = 0
    end: int = 0
    every: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, ("layer", "global", "threshold"))
        check_choice("schedule", self.schedule, ("oneshot", "linear", "cubic"))
        check_range("sparsity", self.sparsity, 0.0, 1.0, open_high=True)
        check_range("quality", self.quality, 0.0, 100.0)
        check_range("initial", self.initial, 0.0, 1.0)
        check_count("begin", self.begin, 0)
        check_count("end", self.end, 0)
        check_count("every", self.every, 1)
        if self.end < self.begin and self.schedule != "oneshot":
            raise ValueError(f"end={self.end} lies before begin={self.begin}: the schedule would run backwards")
        pairs = tuple(self.overrides.items()) if isinstance(self.overrides, Mapping) else tuple(self.overrides)
        for pair in pairs:
            if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
                raise TypeError(f"overrides must map glob patterns to numbers, got {pair!r}")
        for pattern, value in pairs:
            if self.mode == "threshold":
                check_range(f"overrides[{pattern!r}]", value, 0.0, 100.0)
            else:
                check_range(f"overrides[{pattern!r}]", value, 0.0, 1.0, open_high=True)
        if pairs and self.mode == "global":
            raise ValueError("overrides do not go with mode='global', which ranks all layers together: use exclude")
        object.__setattr__(self, "overrides", pairs)
        object.__setattr__(self, "exclude", check_patterns("exclude", self.exclude))
        object.__setattr__(self, "skip", check_skip(self.skip))

    def target(self, layer: str) -> float:
        """Final sparsity (or quality) of a layer."""
        assert isinstance(self.overrides, tuple)
        for pattern, value in self.overrides:
            if fnmatchcase(layer, pattern):
                return value
        return self.quality if self.mode == "threshold" else self.sparsity

    def progress(self, step: int) -> float:
        """Fraction of the final target in force after ``step`` optimizer steps, in [0, 1].

        Cubic: ``1 + (initial - 1) (1 - (step - begin) / (end - begin))^3``.
        """
        if step < self.begin:
            return 0.0
        if self.schedule == "oneshot" or step >= self.end:
            return 1.0
        done = (step - self.begin) // self.every * self.every / (self.end - self.begin)
        left = 1.0 - done
        return 1.0 + (self.initial - 1.0) * (left**3 if self.schedule == "cubic" else left)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """One of each mode and schedule."""
        return (
            cls(sparsity=0.8, skip=()),
            cls(sparsity=0.7, mode="global", schedule="cubic", end=4, every=2, skip=()),
            cls(mode="threshold", quality=0.5, schedule="linear", end=3, skip=()),
        )


@register_method(MagnitudeConfig)
class MagnitudeSession:
    """Masks on the chosen layers, grown by the schedule, re-applied after every optimizer step.

    Parameters
    ----------
    model : nn.Module
        Changed in place: chosen weights get a mask by ``torch.nn.utils.parametrize``.
    config : MagnitudeConfig
    layers : sequence of str
        Names of candidate modules; masks of ``torch.nn.utils.prune`` on them are taken over.

    Raises
    ------
    ValueError
        If a weight is NaN or Inf.
    """

    serves: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv2d, nn.Linear)

    def __init__(self, model: nn.Module, config: MagnitudeConfig, layers: Sequence[str]) -> None:
        self.model, self.config = model, config
        self.reports: list[LayerReport] = []
        self.steps = 0
        inherited = masking.absorb_torch_prune(model)
        modules = dict(model.named_modules())
        reasons = exclusions(model, config.skip, config.exclude)
        owners: dict[int, str] = {}
        self._layers: dict[str, list[nn.Module]] = {}
        self._declined: dict[str, str] = {}
        for name in layers:
            module = modules[name]
            weight = _weight(module)
            if name in reasons:
                self._declined[name] = reasons[name]
            elif id(weight) in owners:
                # Tied parameter: one mask serves all its modules.
                self._layers[owners[id(weight)]].append(module)
            else:
                check_finite(weight, f"weight of layer {name!r}")
                owners[id(weight)] = name
                self._layers[name] = [module]
        self._dense = {name: _weight(mods[0]).detach().clone() for name, mods in self._layers.items()}
        self._std = {name: float(weight.double().std(correction=0)) for name, weight in self._dense.items()}
        self._masks: dict[str, masking.Mask] = {}
        for name, mods in self._layers.items():
            mask = inherited.get(name, torch.ones_like(self._dense[name], dtype=torch.bool))
            self._masks[name] = masking.attach(mods, mask)
        self._applied = 0.0
        self._advance()

    def step(self) -> None:
        """Call after every optimizer step: advance the schedule, put exact zeros back."""
        self.steps += 1
        self._advance()

    def finish(self) -> nn.Module:
        """Prune to the final target if the schedule did not get there; return ordinary modules with exact zeros."""
        if self._applied < 1.0:
            self._prune(1.0)
        self.reports = [_declined(name, self._named(name), why) for name, why in self._declined.items()]
        for name, mods in self._layers.items():
            masking.settle(mods[0], self._masks[name])
            for module in mods:
                masking.detach(module)
            self.reports.append(_done(name, mods[0], self._dense[name], self._masks[name].mask))
        order = {name: i for i, (name, _) in enumerate(self.model.named_modules())}
        self.reports.sort(key=lambda report: order[report.layer])
        return self.model

    def sparsity(self) -> dict[str, float]:
        """Present fraction of zeros per layer."""
        return {name: 1.0 - float(mask.mask.double().mean()) for name, mask in self._masks.items()}

    def state(self) -> dict[str, Any]:
        """Step counter and applied progress; masks travel in the model's ``state_dict``."""
        return {"steps": self.steps, "applied": self._applied, "std": dict(self._std)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self.steps, self._applied = int(state["steps"]), float(state["applied"])
        self._std = {name: float(value) for name, value in state["std"].items()}

    def _named(self, name: str) -> nn.Module:
        return self.model.get_submodule(name)

    def _advance(self) -> None:
        progress = self.config.progress(self.steps)
        if progress > self._applied:
            self._prune(progress)
        else:
            for name, mods in self._layers.items():
                masking.settle(mods[0], self._masks[name])

    def _prune(self, progress: float) -> None:
        """Grow every mask to ``progress`` times its final target."""
        if not self._layers:
            return
        names = list(self._layers)
        scores = [masking.stored(self._layers[name][0]).detach().abs() for name in names]
        alive = [self._masks[name].mask for name in names]
        keeps: list[Tensor]
        if self.config.mode == "global":
            keeps = keep_by_ratio_global(scores, self.config.sparsity * progress, alive)
        elif self.config.mode == "layer":
            targets = [self.config.target(name) * progress for name in names]
            keeps = [keep_by_ratio(s, t, a) for s, t, a in zip(scores, targets, alive, strict=True)]
        else:
            cuts = [self.config.target(name) * progress * self._std[name] for name in names]
            keeps = [keep_by_threshold(s, t, a) for s, t, a in zip(scores, cuts, alive, strict=True)]
        for name, keep in zip(names, keeps, strict=True):
            if not bool(keep.any()):
                raise EmptyLayerError(
                    f"layer {name!r} would lose all of its {keep.numel()} weights: "
                    "lower its sparsity or quality by overrides, or list it in exclude"
                )
        for name, keep in zip(names, keeps, strict=True):
            self._masks[name].mask.copy_(keep)
            masking.settle(self._layers[name][0], self._masks[name])
        self._applied = progress


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _sizes(module: nn.Module) -> tuple[int, int, int]:
    weight, bias = _weight(module), getattr(module, "bias", None)
    extra = 0 if bias is None else bias.numel()
    return weight.numel(), extra, weight.element_size()


def _declined(name: str, module: nn.Module, why: str) -> LayerReport:
    n, extra, item = _sizes(module)
    return LayerReport(
        layer=name,
        method=MagnitudeConfig.method,
        status="declined",
        why=why,
        params_before=n + extra,
        params_after=n + extra,
        macs_before=n,
        macs_after=n,
        bytes_before=item * (n + extra),
        bytes_after=item * (n + extra),
    )


def _done(name: str, module: nn.Module, dense: Tensor, mask: Tensor) -> LayerReport:
    n, extra, item = _sizes(module)
    z = int(mask.sum())
    return LayerReport(
        layer=name,
        method=MagnitudeConfig.method,
        status="done",
        why=f"{n - z} of {n} weights are zero ({1 - z / n:.1%})",
        params_before=n + extra,
        params_after=z + extra,
        macs_before=n,
        macs_after=z,
        bytes_before=item * (n + extra),
        bytes_after=-(-int(sparse_bits(n, z, 8 * item)) // 8) + item * extra,
        weight_error=relative_error(dense, _weight(module)),
    )
