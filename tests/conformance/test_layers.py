"""What every layer of every converted method must do, on every shape."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from fastcnn.methods import registry
from fastcnn.methods.contract import Cost, LayerTheory, LinearSpec, MethodConfig, spec_of
from fastcnn.methods.registry import list_methods, register_method
from tests.conformance.cases import Case, layer_cases
from tests.conformance.tolerances import LAYER, tolerance

# torch says so about its own layer.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
CASES = layer_cases()
DTYPES = [torch.float32, torch.float64]


OFTEN = ("pixel-1x1", "seventeen", "groups", "stride-2", "dilation", "same-even", "reflect", "l8", "l17", "extra-axis")
"""Shapes that every config meets in each run; a method's first config meets all, the others the rest in slow runs."""


@pytest.fixture(
    params=[
        pytest.param(c, marks=() if c.example == 0 or c.shape in OFTEN else pytest.mark.slow, id=str(c)) for c in CASES
    ]
)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def accepted(case: Case, dtype: torch.dtype = torch.float32) -> Any:
    layer = case.layer(dtype)
    if layer is None:
        pytest.skip("the method declines this shape")
    return layer


@pytest.mark.parametrize("kind", sorted({(c.method, c.example, c.kind) for c in CASES}))
def test_every_method_serves_most_shapes(kind: tuple[str, int, str]) -> None:
    mine = [c for c in CASES if (c.method, c.example, c.kind) == kind]
    assert sum(c.layer() is not None for c in mine) > len(mine) / 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layer_is_the_dense_layer_with_the_rebuilt_weight(case: Case, dtype: torch.dtype) -> None:
    layer = accepted(case, dtype)
    x = case.input(dtype)
    dense = layer.to_dense()
    assert type(dense).__name__ == case.kind
    with torch.no_grad():
        got, want = layer(x), dense(x)
        exact = layer.to_dense().double()(x.double())
    assert (got.shape, got.dtype) == (want.shape, dtype)
    error = (got.double() - exact).abs().max() / exact.abs().max()
    assert error <= tolerance(LAYER, case.method, str(dtype).removeprefix("torch."))


def test_conversion_leaves_its_argument_and_keeps_state(case: Case) -> None:
    dense = case.dense(torch.float64).eval()
    before = copy.deepcopy(dense.state_dict())
    layer = accepted(case, torch.float64)
    again = case.layer_class.from_dense(dense, case.config)
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items())
    assert not again.training
    assert layer.training
    assert {t.dtype for t in layer.state_dict().values() if t.is_floating_point()} == {torch.float64}
    for key, value in layer.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), "conversion must be deterministic"
    assert not {t.data_ptr() for t in again.state_dict().values()} & {t.data_ptr() for t in dense.state_dict().values()}


def test_gradients_of_input_and_every_parameter(case: Case) -> None:
    layer = accepted(case, torch.float64)
    names = [name for name, _ in layer.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        out: Tensor = functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))
        return out

    x = case.input(torch.float64, batch=1).requires_grad_()
    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)


def test_cost_equals_what_is_counted(case: Case) -> None:
    layer = accepted(case)
    spec = spec_of(case.dense())
    cost = case.layer_class.cost(case.config, spec)
    assert isinstance(cost, Cost)
    assert cost.params == sum(p.numel() for p in layer.parameters())
    assert cost.param_bytes == sum(t.numel() * t.element_size() for t in layer.state_dict().values())
    assert cost.macs > 0
    assert cost.workspace_bytes >= 0


def test_theory_is_stated(case: Case) -> None:
    layer = accepted(case)
    spec = spec_of(case.dense())
    theory = layer.theory()
    assert isinstance(theory, LayerTheory)
    assert theory.params > 0
    assert 0 < theory.macs <= 4 * spec.dense_macs
    assert theory.bytes > 0


def test_state_dict_round_trip_is_bitwise(case: Case) -> None:
    layer = accepted(case)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_state_dict(torch.load(file, weights_only=True))
    for key, value in layer.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    x = case.input()
    assert torch.equal(layer(x), other(x))


def test_deepcopy_is_equal_and_independent(case: Case) -> None:
    layer = accepted(case)
    other = copy.deepcopy(layer)
    x = case.input()
    want = layer(x).detach().clone()
    assert torch.equal(other(x), want)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    assert torch.equal(layer(x), want)


def test_export_passes_through_and_names_the_kernel(case: Case) -> None:
    layer = accepted(case).eval()
    x = case.input()
    program = torch.export.export(layer, (x,))
    assert torch.equal(program.module()(x), layer(x))
    if layer.kernel is not None:
        assert f"fastcnn.{layer.kernel}.default" in {str(node.target) for node in program.graph.nodes}


class _Record(TorchDispatchMode):
    """Remembers calls of the project's own ops."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fastcnn":
            self.calls.append((func, args, dict(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _check_op(case: Case, checks: list[str]) -> None:
    layer = accepted(case)
    if layer.kernel is None:
        pytest.skip("made of ordinary torch ops")
    with _Record() as record, torch.no_grad():
        layer(case.input())
    assert record.calls
    for op, args, kwargs in record.calls:
        live = [a.detach().clone() if isinstance(a, Tensor) else a for a in args]
        for value in live:
            if isinstance(value, Tensor) and value.is_floating_point():
                value.requires_grad_()
        torch.library.opcheck(op, tuple(live), kwargs, test_utils=checks)


OPS = [c for c in CASES if c.example == 0 and c.shape in ("groups", "same-even", "l7", "extra-axis")]


@pytest.mark.parametrize("case", OPS, ids=str)
def test_the_op_is_well_formed(case: Case) -> None:
    _check_op(case, ["test_schema", "test_autograd_registration", "test_faketensor"])


@pytest.mark.slow
@pytest.mark.parametrize("case", OPS, ids=str)
def test_the_op_compiles_with_its_gradient_for_any_shape(case: Case) -> None:
    _check_op(case, ["test_aot_dispatch_dynamic"])


def test_empty_batch(case: Case) -> None:
    layer = accepted(case)
    x = case.input()[:0].requires_grad_()
    out = layer(x)
    assert out.shape == case.dense()(x).shape
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


BAD_INPUTS = {
    "channels": (lambda x: torch.cat((x, x), dim=1 if x.dim() == 4 else -1), ValueError, "channels"),
    "integers": (lambda x: x.long(), TypeError, r"torch\.int64"),
    "double": (lambda x: x.double(), TypeError, r"torch\.float64"),
    "complex": (lambda x: x.to(torch.complex64), TypeError, r"torch\.complex64"),
    "scalar": (lambda x: x.sum(), ValueError, r"shape \(\)"),
    "numpy": (lambda x: np.asarray(x), TypeError, "ndarray"),
}


@pytest.mark.parametrize("bad", BAD_INPUTS)
@pytest.mark.parametrize("case", [c for c in CASES if c.shape in ("c8", "groups", "l8")], ids=str)
def test_bad_input_is_refused_by_name(case: Case, bad: str) -> None:
    change, error, message = BAD_INPUTS[bad]
    with pytest.raises(error, match=message):
        accepted(case)(change(case.input()))


@pytest.mark.parametrize(
    ("method", "example"), [(m, i) for m in list_methods() for i in range(len(m.config.examples()))], ids=str
)
def test_configs_are_frozen_keyword_only_and_survive_json(method: registry.Method, example: int) -> None:
    config = method.config.examples()[example]
    text = json.dumps(config.to_json())
    again = method.config.from_json(json.loads(text))
    assert again == config
    assert hash(again) == hash(config)
    field = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, field, None)
    with pytest.raises(TypeError):
        method.config(1)  # type: ignore[call-arg]
    data = config.to_json()
    with pytest.raises(ValueError, match="version=99"):
        method.config.from_json({**data, "version": 99})
    with pytest.raises(ValueError, match="method='other'"):
        method.config.from_json({**data, "method": "other"})
    with pytest.raises(ValueError, match=f"'colour' is not a setting of {method.config.__name__}: choose from {field}"):
        method.config.from_json({**data, "settings": {"colour": 1}})
    with pytest.raises(TypeError, match="settings of"):
        method.config.from_json({**data, "settings": 3})


def test_a_new_method_is_picked_up_without_an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class HalvedConfig(MethodConfig):
        """Keeps half of each weight."""

        method = "halved"

    class HalvedLinear(nn.Module):
        kernel = None
        replaces = nn.Linear

        def __init__(self, dense: nn.Linear) -> None:
            super().__init__()
            self.half = nn.Parameter(dense.weight.detach() / 2)

        @classmethod
        def from_dense(cls, dense: nn.Linear, config: HalvedConfig) -> HalvedLinear:
            return cls(dense)

        def to_dense(self) -> nn.Linear:
            dense = nn.Linear(self.half.shape[1], self.half.shape[0], bias=False)
            dense.weight = self.half
            return dense

        @staticmethod
        def cost(config: HalvedConfig, spec: LinearSpec) -> Cost:
            return Cost(macs=spec.weights, params=spec.weights, param_bytes=4 * spec.weights, workspace_bytes=0)

        def theory(self) -> LayerTheory:
            return LayerTheory(params=self.half.numel(), macs=self.half.numel(), bytes=4 * self.half.numel())

    register_method(HalvedConfig)(HalvedLinear)
    fresh = [c for c in layer_cases() if c.method == "halved"]
    assert [c.kind for c in fresh] == ["Linear"] * 7
    assert [m.name for m in list_methods() if m.summary == "Keeps half of each weight."] == ["halved"]
    with pytest.raises(ValueError, match="already has a layer for Linear"):
        register_method(HalvedConfig)(HalvedLinear)
    with pytest.raises(TypeError, match="lacks step, finish"):
        register_method(HalvedConfig)(type("Nothing", (), {}))
