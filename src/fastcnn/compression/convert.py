"""convert and prepare: apply a method to the layers of a model, into a new model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from fastcnn.compression.calibrate import inputs_of, layer_inputs, replace_calibrated, sights
from fastcnn.compression.captured import convert_captured, prepare_captured
from fastcnn.compression.report import attach, rename_layers
from fastcnn.compression.share_out import check_kept, share_out, size_of
from fastcnn.methods import sequences
from fastcnn.methods.contract import LayerReport, MethodConfig, TrainedSession, check_patterns
from fastcnn.methods.pruning.masking import absorb_torch_prune
from fastcnn.methods.registry import Method, method_of
from fastcnn.methods.replace import Choice, replace_layers, weight_layers
from fastcnn.methods.structured.ranks import RankConfig
from fastcnn.methods.transforms.convolution.measure import forget_input_shapes, record_input_shapes


class NothingDoneWarning(UserWarning):
    """Every matched layer was declined; the model is an unchanged copy and the message says why."""


class Trainee(nn.Module):
    """A model in training under a session, made by :func:`prepare`.

    Forward is that of ``model``. Any training loop calls :meth:`step` after each ``optimizer.step()``, and
    :meth:`finish` (or ``fastcnn.convert(trainee)``) at the end; ``fastcnn.finetune`` does it for you.
    ``state_dict`` carries masks and the session's counters, so a loop can be resumed exactly.
    """

    def __init__(self, model: nn.Module, session: TrainedSession, config: MethodConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self._session: TrainedSession | None = session

    @property
    def session(self) -> TrainedSession:
        """The running session; ValueError once it is finished."""
        if self._session is None:
            raise ValueError("this training session is finished: prepare the model again to go on")
        return self._session

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model under training."""
        return self.model(*args, **kwargs)

    def step(self) -> None:
        """Tell the session that the optimizer has made a step."""
        self.session.step()

    def finish(self) -> nn.Module:
        """End the session; return the model as ordinary modules, with its report."""
        session = self.session
        model = session.finish()
        attach(model, session.reports)
        self._session = None
        return model

    def get_extra_state(self) -> dict[str, Any]:
        """Session state for ``state_dict``."""
        return self.session.state()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`get_extra_state`."""
        self.session.load_state(state)


def convert(
    model: nn.Module,
    config: MethodConfig | None = None,
    layers: str | Sequence[str] = "*",
    data: Tensor | Iterable[Any] | None = None,
) -> nn.Module:
    """Apply a method to the matching layers and return a new model.

    Parameters
    ----------
    model : nn.Module
        Left alone. A module from :func:`prepare` instead ends its session (then no ``config``).
    config : MethodConfig
        Which method, and how. A trained method runs here without training, straight to its final target.
    layers : glob pattern or sequence of them
        Names as in ``model.named_modules()``; ``*`` also crosses dots. ``nn.Conv1d`` is a convolution of one row.
    data : Tensor or iterable, optional
        One batch of inputs, or batches of them (inputs, or tuples that begin with them). To FFTConfig and
        WinogradConfig the first shows the size of each layer's input, so that they can time it. Factorisations
        (SVDConfig, TuckerConfig ...) are fitted to what each layer sees, layer by layer, each fed by the already
        converted layers before it; a few hundred inputs will do. Int8Config needs them, for the ranges of what layers
        read. Methods that read no data refuse it.

    Returns
    -------
    nn.Module
        Same mode, devices and dtypes; ``fastcnn.report`` tells what happened to each layer.

    Raises
    ------
    ValueError
        If nothing matches ``layers`` (the message lists the layers there are), a weight is NaN or Inf, data is given
        to a method that reads none, holds no batch, or does not run through the model; or a budget cannot be kept.
    TypeError
        For a wrong kind of argument.

    Warns
    -----
    NothingDoneWarning
        If every matched layer was declined.

    Examples
    --------
    >>> from torch import nn
    >>> from fastcnn import KMeansConfig, convert
    >>> small = convert(nn.Sequential(nn.Linear(8, 4)), KMeansConfig(clusters=4))
    """
    if isinstance(model, Trainee):
        if config is not None or layers != "*":
            raise ValueError("a prepared model already has its config and layers: call convert(trainee) alone")
        return _warn_if_idle(model.finish(), model.config)
    _check_model(model)
    method = _method(config)
    assert config is not None
    if data is not None and not config.reads_data():
        raise ValueError(f"{type(config).__name__} reads no calibration data, as it is set: leave data out")
    if method.kind == "trained":
        return _warn_if_idle(prepare(model, config, layers).finish(), config)
    fresh = copy_model(model)
    absorb_torch_prune(fresh)
    if method.kind == "captured":
        names = matching_layers(fresh, method, layers)
        return _warn_if_idle(convert_captured(fresh, method, config, names, data), config)
    if nn.Conv2d in method.layers:
        sequences.wrap(fresh)
    names = config.which({name: fresh.get_submodule(name) for name in matching_layers(fresh, method, layers)})
    batches = list(inputs_of(data)) if data is not None and config.calibrates else None
    choice: MethodConfig | Mapping[str, Choice] = config
    whole = 0
    if isinstance(config, RankConfig) and config.budget is not None:
        if config.budget_of == "multiply-adds" and batches is None:
            raise ValueError("multiply-adds depend on the size of the input: give convert data, or budget parameters")
        seen = ((name, None) for name in names) if batches is None else sights(fresh, names, batches)
        inputs = layer_inputs(fresh, batches[0]) if batches and config.budget_of == "multiply-adds" else None
        whole = size_of(fresh, inputs)
        choice = share_out(fresh, method, config, seen, inputs, calibrated=batches is not None)
    if batches is not None:
        attach(fresh, replace_calibrated(copy_model(fresh), fresh, method, choice, names, batches))
    else:
        if data is not None:
            _show_sizes(fresh, next(inputs_of(data)))
        attach(fresh, replace_layers(fresh, method, choice, names))
        forget_input_shapes(fresh)
    if isinstance(config, RankConfig) and config.budget is not None:
        check_kept(fresh, config, whole, batches[0] if batches else None)
    rename_layers(fresh, sequences.outer_names(fresh))
    sequences.unwrap(fresh)
    return _warn_if_idle(fresh, config)


def prepare(
    model: nn.Module,
    config: MethodConfig,
    layers: str | Sequence[str] = "*",
    data: Tensor | Iterable[Any] | None = None,
) -> Trainee:
    """Begin a trained method on a copy of the model.

    Parameters
    ----------
    model : nn.Module
        Left alone; masks of ``torch.nn.utils.prune`` are taken over.
    config : MethodConfig
        Of a trained method (MagnitudeConfig, DeepCompressionConfig, BNNConfig ...), or Int8Config.
    layers : glob pattern or sequence of them
    data : Tensor or iterable, optional
        Calibration inputs, as :func:`convert` takes them, which Int8Config needs: its net is captured and begins with
        the ranges they show. Other methods read none and refuse it.

    Returns
    -------
    Trainee
        Train it by ``fastcnn.finetune`` or your own loop, then ``fastcnn.convert(trainee)``.

    Raises
    ------
    ValueError
        If the method needs no training (use convert), nothing matches, a weight is NaN or Inf, data is missing, holds
        no batch or is given to a method that reads none, or a model that has to be captured cannot be.
    TypeError
        For a wrong kind of argument.

    Examples
    --------
    >>> from torch import nn, randn
    >>> from fastcnn import Int8Config, convert, prepare
    >>> trainee = prepare(nn.Sequential(nn.Linear(8, 4)), Int8Config(), data=randn(32, 8))
    >>> small = convert(trainee)
    """
    _check_model(model)
    method = _method(config)
    if method.kind != "trained" and method.training is None:
        raise ValueError(f"{type(config).__name__} needs no session: call fastcnn.convert(model, config)")
    if data is not None and method.training is None:
        raise ValueError(f"{type(config).__name__} reads no calibration data to prepare a model: leave data out")
    fresh = copy_model(model)
    names = matching_layers(fresh, method, layers)
    foreign = [name for name in names if "parametrizations" in fresh.get_submodule(name)._modules]
    if foreign:
        raise ValueError(
            f"the weights of {', '.join(foreign)} are already parametrized: call "
            "torch.nn.utils.parametrize.remove_parametrizations on them, or end their session by convert"
        )
    if method.training is not None:
        absorb_torch_prune(fresh)
        session = prepare_captured(fresh, method, config, names, data)
        fresh = session.model
    else:
        session = method.session(fresh, config, names)
    trainee = Trainee(fresh, session, config)
    trainee.training = model.training
    return trainee


def copy_model(model: nn.Module) -> nn.Module:
    """Deep copy that also takes tensors hung on modules by torch.nn.utils.prune (which deepcopy refuses)."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    with warnings.catch_warnings():
        # torch warns of its own use of its own tree when it copies a captured graph.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        return copy.deepcopy(model, memo)


def _show_sizes(model: nn.Module, inputs: Tensor) -> None:
    """Run the model once, so that its layers see the size of their input."""
    try:
        record_input_shapes(model, inputs)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"the model does not run on the first batch of data, of shape {tuple(inputs.shape)}: {error}"
        ) from error


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def _method(config: MethodConfig | None) -> Method:
    if config is None:
        raise TypeError("config is missing: give a config such as fastcnn.KMeansConfig(), or a prepared model")
    return method_of(config)


def matching_layers(model: nn.Module, method: Method, layers: str | Sequence[str]) -> list[str]:
    """Names of the layers that a method serves and the patterns match.

    Raises
    ------
    ValueError
        If a pattern matches nothing; the message lists the layers there are.
    """
    patterns = check_patterns("layers", layers)
    kinds = method.session.serves if method.session is not None else tuple(method.layers)
    candidates = weight_layers(model, kinds)
    known = {name: sequences.outer_name(name) for name in candidates}
    found = [name for name in candidates if any(fnmatchcase(known[name], pattern) for pattern in patterns)]
    if not found:
        served = " and ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"layers={layers!r} matches no layer that {method.name} serves ({served}). "
            f"The model has: {', '.join(known.values()) or 'none of that kind'}"
        )
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known.values()):
            raise ValueError(
                f"the pattern {pattern!r} in layers matches nothing. The model has: {', '.join(known.values())}"
            )
    return found


def _warn_if_idle(model: nn.Module, config: MethodConfig) -> nn.Module:
    lines: list[LayerReport] = model.__dict__["_fastcnn_reports"]
    if not any(line.status == "done" for line in lines):
        why = "; ".join(f"{line.layer}: {line.why}" for line in lines)
        warnings.warn(f"{type(config).__name__} changed nothing: {why}", NothingDoneWarning, stacklevel=3)
    return model
