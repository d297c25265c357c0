"""The registry: which config stands for which layers or session; read by convert, CLI, docs and conformance tests."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from torch import nn

from fastcnn.methods.contract import MethodConfig

ROOMS = ("transforms", "structured", "lowprecision", "pruning", "vq")
"""Rooms that hold registered methods; each imports its files."""

T = TypeVar("T", bound=type)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One registered method.

    Parameters
    ----------
    name : str
        The config's ``method`` word.
    kind : {"converted", "trained", "captured"}
        Whether it offers layer classes, a session, or a conversion of captured nets.
    config : type of MethodConfig
    layers : dict of dense class to layer class
        Converted methods only.
    session : type or None
        Of trained methods the session, of captured ones the conversion.
    training : type or None
        Of captured methods that train, the session.
    """

    name: str
    kind: Literal["converted", "trained", "captured"]
    config: type[MethodConfig]
    layers: dict[type[nn.Module], Any] = field(default_factory=dict)
    session: Any = None
    training: Any = None

    @property
    def summary(self) -> str:
        """First line of the config's docstring."""
        return (inspect.getdoc(self.config) or "").partition("\n")[0]

    @property
    def serves(self) -> tuple[str, ...]:
        """Dense classes it takes, by name."""
        if self.session is not None:
            return tuple(cls.__name__ for cls in self.session.serves)
        return tuple(cls.__name__ for cls in self.layers)

    @property
    def kernels(self) -> tuple[str, ...]:
        """Ops its layers lower to."""
        return tuple(layer.kernel for layer in self.layers.values() if layer.kernel)


_METHODS: dict[type[MethodConfig], Method] = {}


def register_method(config: type[MethodConfig]) -> Callable[[T], T]:
    """Class decorator: register a layer class (has ``replaces``), a conversion (``run``) or a session under its config.

    A config may have several layer classes, one for each dense class; and beside a conversion a session, for training.

    Raises
    ------
    TypeError
        If the class fulfils neither contract.
    ValueError
        If the config's word is empty or taken, or the dense class already has a layer.
    """

    def register(cls: T) -> T:
        if not config.method:
            raise ValueError(f"{config.__name__} must set `method`, its word in reports and recipes")
        for other in _METHODS.values():
            if other.name == config.method and other.config is not config:
                raise ValueError(f"method {config.method!r} is taken by {other.config.__name__}")
        known = _METHODS.get(config)
        if hasattr(cls, "replaces"):
            _demand(cls, ("from_dense", "to_dense", "cost", "theory", "kernel"))
            layers = dict(known.layers) if known is not None else {}
            if cls.replaces in layers:
                raise ValueError(f"{config.__name__} already has a layer for {cls.replaces.__name__}")
            layers[cls.replaces] = cls
            _METHODS[config] = Method(name=config.method, kind="converted", config=config, layers=layers)
        elif hasattr(cls, "run"):
            _demand(cls, ("run", "serves"))
            if known is not None:
                raise ValueError(f"{config.__name__} already has the conversion {known.session}")
            _METHODS[config] = Method(name=config.method, kind="captured", config=config, session=cls)
        else:
            _demand(cls, ("step", "finish", "state", "load_state", "serves"))
            if known is not None and known.kind == "captured" and known.training is None:
                _METHODS[config] = replace(known, training=cls)
                return cls
            if known is not None:
                raise ValueError(f"{config.__name__} already has the session {known.training or known.session}")
            _METHODS[config] = Method(name=config.method, kind="trained", config=config, session=cls)
        return cls

    return register


def _demand(cls: type, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not hasattr(cls, name)]
    if missing:
        raise TypeError(f"{cls.__name__} cannot be registered: it lacks {', '.join(missing)}")


def list_methods() -> list[Method]:
    """Return every method of the library, in the order of the survey's rooms."""
    for room in ROOMS:
        importlib.import_module(f"fastcnn.methods.{room}")
    return list(_METHODS.values())


def method_of(config: MethodConfig) -> Method:
    """Return the method a config belongs to.

    Raises
    ------
    TypeError
        If ``config`` is no registered config; the message lists those that are.
    """
    methods = list_methods()
    for method in methods:
        if type(config) is method.config:
            return method
    known = ", ".join(sorted(method.config.__name__ for method in methods))
    raise TypeError(f"config must be one of {known}; got {type(config).__name__} {config!r}")
