"""What every method promises: its config, its cost, its report, its layer or its session.

*Converted* methods offer layer classes (:class:`ConvertedLayer`); *trained* methods offer a session
(:class:`TrainedSession`) that any training loop can drive: ``prepare -> step -> finish``; *captured* methods offer a
conversion of a net's graph, and may offer such a session on it. Adding a method touches four places: its file, its
test, its docs page and one import line in its room.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor, nn


class DeclinedError(ValueError):
    """A method does not serve this layer; the message says why. ``convert`` reports it and goes on."""


class EmptyLayerError(ValueError):
    """Pruning would leave a layer without a single weight; the message names the layer."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Settings of a method: immutable, checked on creation, JSON-able.

    A subclass sets ``method`` (its word in reports, recipes and files) and ``version``, and checks its
    fields in ``__post_init__``. Mappings are kept as sorted tuples of pairs so that configs hash and compare.
    """

    method: ClassVar[str] = ""
    version: ClassVar[int] = 1
    reads_input_sizes: ClassVar[bool] = False
    """Whether ``from_dense`` looks at the input size that an example batch gives a layer."""
    calibrates: ClassVar[bool] = False
    """Whether ``from_dense`` takes a :class:`Sight` of the layer on calibration inputs."""

    def to_json(self) -> dict[str, Any]:
        """Return ``{"method", "version", "settings"}``, ready for ``json.dumps``."""
        return {"method": self.method, "version": self.version, "settings": _plain(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a config from :meth:`to_json`.

        Raises
        ------
        ValueError
            If the method's word, the version or a setting's name is not one this class knows.
        """
        if data.get("method") != cls.method:
            raise ValueError(f"method={data.get('method')!r} is not {cls.__name__}'s: expected {cls.method!r}")
        if data.get("version") != cls.version:
            raise ValueError(
                f"version={data.get('version')!r} of {cls.__name__} is not supported: this release reads {cls.version}"
            )
        settings = data.get("settings", {})
        if not isinstance(settings, Mapping):
            raise TypeError(f"settings of {cls.__name__} must be a mapping, got {type(settings).__name__}")
        return cls.from_settings(settings)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Build a config from a plain mapping of its fields; nested configs may be mappings too."""
        allowed = {field.name: field for field in dataclasses.fields(cls)}
        for name in settings:
            if name not in allowed:
                raise ValueError(f"{name!r} is not a setting of {cls.__name__}: choose from {', '.join(allowed)}")
        values: dict[str, Any] = {}
        for name, value in settings.items():
            default: Any = allowed[name].default_factory
            if isinstance(value, Mapping) and hasattr(default, "from_settings"):
                value = default.from_settings(value)
            elif isinstance(value, list):
                value = tuple(tuple(item) if isinstance(item, list) else item for item in value)
            values[name] = value
        return cls(**values)

    def reads_data(self) -> bool:
        """Whether calibration inputs make a difference with these settings."""
        return self.calibrates or self.reads_input_sizes

    def which(self, layers: Mapping[str, nn.Module]) -> list[str]:
        """Of the matching layers, in the model's order, those the method is for; the others stay as they are."""
        return list(layers)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Small valid configs; the conformance suite and the docs run every one of them."""
        return (cls(),)


def _plain(config: MethodConfig) -> dict[str, Any]:
    """Fields as JSON values: tuples become lists, nested configs become mappings."""

    def value(item: Any) -> Any:
        if isinstance(item, MethodConfig):
            return _plain(item)
        return [value(part) for part in item] if isinstance(item, tuple) else item

    return {field.name: value(getattr(config, field.name)) for field in dataclasses.fields(config)}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a layer costs, by arithmetic.

    Parameters
    ----------
    macs : int
        Multiply-adds for one picture (conv) or one row (linear).
    params : int
        Trainable numbers.
    param_bytes : int
        Bytes the layer's parameters and buffers take in memory.
    workspace_bytes : int
        Bytes the reference path needs beside input and output.
    """

    macs: int
    params: int
    param_bytes: int
    workspace_bytes: int


@dataclass(frozen=True, kw_only=True)
class ConvSpec:
    """Shape of a 2-d convolution. With the default ``output_size`` costs are per output position."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    groups: int = 1
    bias: bool = True
    output_size: tuple[int, int] = (1, 1)

    @property
    def weights(self) -> int:
        """Numbers in the dense weight, O * I/g * kH * kW."""
        return self.out_channels * (self.in_channels // self.groups) * self.kernel_size[0] * self.kernel_size[1]

    @property
    def dense_macs(self) -> int:
        """Multiply-adds of the dense layer for one picture."""
        return self.weights * self.output_size[0] * self.output_size[1]

    @classmethod
    def of(cls, layer: nn.Conv2d, output_size: tuple[int, int] = (1, 1)) -> ConvSpec:
        """Read the spec off a layer."""
        return cls(
            in_channels=layer.in_channels,
            out_channels=layer.out_channels,
            kernel_size=(layer.kernel_size[0], layer.kernel_size[1]),
            groups=layer.groups,
            bias=layer.bias is not None,
            output_size=output_size,
        )


@dataclass(frozen=True, kw_only=True)
class LinearSpec:
    """Shape of a linear layer."""

    in_features: int
    out_features: int
    bias: bool = True

    @property
    def weights(self) -> int:
        """Numbers in the dense weight, O * I."""
        return self.in_features * self.out_features

    @property
    def dense_macs(self) -> int:
        """Multiply-adds of the dense layer for one row."""
        return self.weights

    @property
    def out_channels(self) -> int:
        """Alias, so that costs of conv and linear layers share one formula."""
        return self.out_features

    @classmethod
    def of(cls, layer: nn.Linear) -> LinearSpec:
        """Read the spec off a layer."""
        return cls(in_features=layer.in_features, out_features=layer.out_features, bias=layer.bias is not None)


Spec = ConvSpec | LinearSpec


def spec_of(layer: nn.Module) -> Spec:
    """Spec of a dense layer; TypeError for any other module."""
    if isinstance(layer, nn.Conv2d):
        return ConvSpec.of(layer)
    if isinstance(layer, nn.Linear):
        return LinearSpec.of(layer)
    raise TypeError(f"{type(layer).__name__} has no spec: expected nn.Conv2d or nn.Linear")


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What one method did to one layer, or why it did nothing.

    ``macs_*`` are per output position (conv) or per row (linear); ``bytes_*`` are what the weights and
    bias need in theory (information content of what the layer now holds); ``weight_error`` is
    ``||W - W'||_F / ||W||_F``, 0.0 for a declined layer.
    """

    layer: str
    method: str
    status: Literal["done", "declined"]
    why: str
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    bytes_before: int
    bytes_after: int
    weight_error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What conversion knows of a layer beside its weights, from calibration inputs.

    Parameters
    ----------
    moments : Moments
        Of the inputs that the net in conversion gives the layer, and of the outputs the original net has there.
    input_shape : tuple of int
        Of one calibration input, with a batch of 1.
    latency_ms : callable
        Milliseconds that a layer takes by this machine's engine at that input, compiled at the default tolerance.
    dense_ms : callable
        The same of the dense layer.
    """

    moments: Any
    input_shape: tuple[int, ...]
    latency_ms: Callable[[nn.Module], float]
    dense_ms: Callable[[], float]


class ConvertedLayer(Protocol):
    """A layer that stands for a dense one. Also an ``nn.Module`` with a plain, differentiable forward."""

    kernel: ClassVar[str | None]
    """The ``torch.ops.fastcnn`` op it lowers to, or None if it is made of ordinary torch ops."""
    replaces: ClassVar[type[nn.Module]]
    """The dense class it is built from."""

    @classmethod
    def from_dense(cls, dense: Any, config: Any) -> Any:
        """Build from a dense layer, which is left alone. DeclinedError if it cannot serve it."""

    def to_dense(self) -> nn.Module:
        """Return the dense layer whose weight this layer stands for."""

    @staticmethod
    def cost(config: Any, spec: Any) -> Cost:
        """Cost for a dense layer of that shape whose weights are all distinct and non-zero."""

    def theory(self) -> LayerTheory:
        """Numbers for the report, from what the layer holds."""


@dataclass(frozen=True, kw_only=True)
class LayerTheory:
    """Non-zero parameters, multiply-adds per output position or row, and bytes in theory."""

    params: int
    macs: int
    bytes: int


class TrainedSession(Protocol):
    """A method that lives in the training loop.

    Built on a model it may change (``fastcnn.prepare`` gives it a copy); ``step`` is called after every
    optimizer step; ``finish`` returns an ordinary model. Tensors that training changes live in the
    model, so that its ``state_dict`` carries them; the rest is ``state``/``load_state``.
    """

    serves: ClassVar[tuple[type[nn.Module], ...]]
    """Dense classes whose layers it takes."""
    reports: list[LayerReport]
    """Filled by :meth:`finish`, in the order of the layers."""

    def __init__(self, model: nn.Module, config: Any, layers: Sequence[str]) -> None: ...

    def step(self) -> None:
        """Advance by one optimizer step."""

    def finish(self) -> nn.Module:
        """Bring the schedule to its end and return the model as ordinary modules."""

    def state(self) -> dict[str, Any]:
        """Counters and the like, JSON-able."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""


def relative_error(before: Tensor, after: Tensor) -> float:
    """``||W - W'||_F / ||W||_F`` in float64; 0.0 for an all-zero W that stayed so."""
    norm = float(before.detach().double().norm())
    gone = float((before.detach().double() - after.detach().double()).norm())
    return gone / norm if norm else float(gone > 0)


def check_finite(tensor: Tensor, what: str) -> None:
    """Raise ValueError if a weight or score holds NaN or Inf: NaN compares false and would survive silently."""
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{what} holds {bad} non-finite values (NaN or Inf): mend or retrain the model first")


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not supported: choose from {', '.join(map(repr, allowed))}")


def check_range(name: str, value: object, low: float, high: float, *, open_high: bool = False) -> None:
    """Raise TypeError unless a real number, ValueError unless ``low <= value <= high`` (or ``< high``)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {type(value).__name__} {value!r}")
    if not (low <= value < high if open_high else low <= value <= high):
        raise ValueError(
            f"{name}={value} is out of range: allowed is {low} <= {name} {'<' if open_high else '<='} {high}"
        )


def check_count(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise TypeError unless an int, ValueError unless ``low <= value`` (``<= high`` if given)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < low or (high is not None and value > high):
        bound = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name}={value} is out of range: it must be {bound}")


def check_patterns(name: str, value: object) -> tuple[str, ...]:
    """Return glob patterns as a tuple; TypeError for anything but a string or a sequence of strings."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} must be a glob pattern or a sequence of them, got {value!r}")
    return tuple(value)


def check_input(
    input: Tensor, *, layer: str, channels: int, axis: int, ranks: Sequence[int], dtype: torch.dtype
) -> None:
    """Raise for an input of the wrong rank, channel count or dtype, saying what came and what is allowed."""
    if not isinstance(input, Tensor):
        raise TypeError(f"input of {layer} must be a torch.Tensor, got {type(input).__name__}")
    if ranks and input.dim() not in ranks:
        allowed = " or ".join(str(rank) for rank in ranks)
        raise ValueError(f"input of {layer} must have {allowed} dimensions, got shape {tuple(input.shape)}")
    if input.dim() == 0 or input.shape[axis] != channels:
        raise ValueError(
            f"input of {layer} must have {channels} channels on axis {axis}, got shape {tuple(input.shape)}"
        )
    if not input.dtype.is_floating_point:
        raise TypeError(f"input of {layer} must be floating point, got {input.dtype}: convert it with .to({dtype})")
    if input.dtype != dtype and not torch.is_autocast_enabled(input.device.type):
        raise TypeError(f"input of {layer} is {input.dtype} but its weights are {dtype}: convert one of them")
