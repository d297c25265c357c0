"""``torch.compile(model, backend="fastcnn")``: what runs natively, what stays in torch, and that both say so."""

from __future__ import annotations

import importlib.metadata
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.models.mobilenet import InvertedResidual
from tests.models.pretrained import load_pretrained

OPTIONS: dict[str, Any] = {"tune": False, "threads": 1}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.manual_seed(0)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(model: nn.Module, **options: Any) -> Any:
    return torch.compile(model, backend="fastcnn", options={**OPTIONS, **options})


def nets(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Input shapes of the native nets made so far, in order."""
    made = [r.getMessage() for r in caplog.records if "torch.compile: CompiledNet(" in r.getMessage()]
    return [re.sub(r".*CompiledNet\((.*);.*", r"\1", message) for message in made]


def error_of(y: Any, model: nn.Module, x: torch.Tensor) -> float:
    """Per picture max|y - y64| / max|y64|, worst picture."""
    import copy

    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double()).numpy()
    axes = tuple(range(1, exact.ndim))
    return float((np.abs(y.numpy() - exact).max(axis=axes) / np.abs(exact).max(axis=axes)).max())


def test_the_entry_point_is_declared() -> None:
    (entry,) = importlib.metadata.entry_points(group="torch_dynamo_backends", name="fastcnn")
    from fastcnn.engine.torch_backend import fastcnn

    assert entry.load() is fastcnn
    assert "fastcnn" in torch.compiler.list_backends()


def test_resnet20(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Real weights; one net serves every batch."""
    model = load_pretrained("cifar10_resnet20", data_dir)
    fast = torch.compile(model, backend="fastcnn", options=OPTIONS, dynamic=True)
    with caplog.at_level(logging.INFO, "fastcnn"), torch.inference_mode():
        for batch in (2, 3, 5):
            x = torch.randn(batch, 3, 32, 32)
            assert error_of(fast(x), model, x) < 1e-4
    assert nets(caplog) == ["inputs_0 (2, 3, 32, 32)"]


class SmallMobileNet(nn.Module):
    """A stem, two inverted residuals, pooling and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
        self.blocks = nn.Sequential(InvertedResidual(16, 24, 2, 6), InvertedResidual(24, 24, 1, 6))
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x)).mean((2, 3))
        return self.head(F.dropout(x, 0.2, self.training))


def test_mobilenet_blocks(caplog: pytest.LogCaptureFixture) -> None:
    model = SmallMobileNet().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 32, 32)
    with caplog.at_level(logging.INFO, "fastcnn"), torch.no_grad():
        y = compiled(model, tolerance="exact", strict=True)(x)
    assert error_of(y, model, x) < 2e-6
    assert nets(caplog) == ["inputs_0 (2, 3, 32, 32)"]


class Break(nn.Module):
    """A branch on a value of the first half; several outputs, one of them the input, one no float."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = torch.relu(self.first(x))
        if y.mean() > 0.0:
            y = y * 2
        z = self.second(y)
        return z, y, z.argmax(1), x


def test_a_graph_break_makes_two_nets(caplog: pytest.LogCaptureFixture) -> None:
    model, x = Break().eval(), torch.randn(2, 3, 9, 9)
    with caplog.at_level(logging.INFO, "fastcnn"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")  # comparisons and indices are computed behind the nets, which is no refusal
        got = compiled(model)(x)
        expected = model(x)
    assert nets(caplog) == ["inputs_0 (2, 3, 9, 9)", "inputs_0 (2, 8, 7, 7)"]
    assert isinstance(got, tuple)
    assert got[3] is x
    assert got[2].dtype == torch.int64
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


class Pyramid(nn.Module):
    """A dict of a tensor and a tuple, one value twice, and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, 2)

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> dict[str, Any]:
        a = self.a(x) * scale
        b = F.interpolate(self.b(a), scale_factor=2.0)
        return {"maps": (a, b), "again": a, "name": "pyramid", "none": None}


def test_many_outputs_and_a_number_as_argument() -> None:
    model, x = Pyramid().eval(), torch.randn(1, 3, 9, 9)
    fast = compiled(model)
    with torch.no_grad():
        for scale in (1.0, 2.5, 3.5):
            got, expected = fast(x, scale=scale), model(x, scale=scale)
            assert got["name"] == "pyramid"
            assert got["none"] is None
            torch.testing.assert_close(got["maps"], expected["maps"], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(got["again"], expected["again"], rtol=1e-5, atol=1e-5)


def test_a_number_that_keeps_changing_is_left_to_torch() -> None:
    model, x = Pyramid().eval(), torch.randn(1, 3, 9, 9)
    fast = compiled(model)

    @torch.no_grad()
    def agree(scale: float) -> None:
        got, expected = fast(x, scale=scale), model(x, scale=scale)
        torch.testing.assert_close(got["maps"], expected["maps"], rtol=1e-5, atol=1e-5)

    for step in range(9):  # the first is compiled for itself, the second and later ones for any number
        agree(step / 8)
    with pytest.warns(UserWarning, match="a number among its inputs has had more than 8 values"):
        agree(9 / 8)
    agree(10 / 8)


class Flatten(nn.Module):
    """Sizes read from the input, batch and image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        return self.conv(x).view(n, 4 * h * w) * (h / w)


def test_dynamic_shapes() -> None:
    """Batch and image size, from the first call on; the size in the arithmetic is that of each call."""
    model = Flatten().eval()
    fast = torch.compile(model, backend="fastcnn", options=OPTIONS, dynamic=True)
    with torch.no_grad():
        for shape in ((2, 3, 8, 8), (3, 3, 8, 8), (2, 3, 10, 8), (4, 3, 5, 7), (2, 3, 8, 8)):
            x = torch.randn(shape)
            torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)


def test_changed_weights_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    """In place, by an optimiser or load_state_dict, and by another tensor."""
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval(), torch.randn(1, 3, 6, 6)
    fast = compiled(model)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    other[1].running_mean.fill_(0.3)

    def agree() -> None:
        with torch.no_grad():
            torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)

    with caplog.at_level(logging.INFO, "fastcnn"):
        agree()
        model.load_state_dict(other.state_dict())
        agree()
        with torch.no_grad():
            model[1].running_var.mul_(3)
        agree()
        model[0].weight.data = torch.randn(4, 3, 3, 3)
        agree()
        agree()
    assert len(nets(caplog)) == 4


class LogGamma(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.lgamma(x.abs() + 1)


def test_an_operation_outside_the_set_is_named() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), LogGamma()).eval(), torch.randn(1, 3, 6, 6)
    with torch.no_grad(), pytest.warns(UserWarning, match=r"aten::lgamma .* runs in torch"):
        torch.testing.assert_close(compiled(model)(x), model(x), rtol=1e-5, atol=1e-5)
    torch.compiler.reset()
    with torch.no_grad(), pytest.raises(Exception, match=r"cannot run aten::lgamma"):
        compiled(model, strict=True)(x)


STAYS = {
    "gradients": (nn.Conv2d(3, 4, 3).eval(), torch.randn(1, 3, 6, 6), "gradients are asked for: .*no_grad"),
    "training": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), torch.randn(2, 3, 6, 6), r"model\.eval\(\)"),
    "in_place": (nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3)).eval(), torch.randn(1, 3, 6, 6), "writes to"),
    "float64": (nn.Conv2d(3, 4, 3).double().eval(), torch.randn(1, 3, 6, 6).double(), None),
    "embedding": (nn.Embedding(9, 4).eval(), torch.arange(6)[None], "torch.int64: the engine takes float32"),
}


@pytest.mark.parametrize("case", STAYS)
def test_what_stays_in_torch(case: str) -> None:
    model, x, reason = STAYS[case]
    grad = torch.enable_grad() if case == "gradients" else torch.no_grad()
    with grad, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        y = compiled(model)(x.clone())
        torch.testing.assert_close(y, model(x.clone()), rtol=1e-5, atol=1e-5)
    texts = [str(w.message) for w in seen if "runs in torch" in str(w.message)]
    if reason is None:  # nothing float32 in it
        assert not texts
        return
    assert len(texts) == 1
    assert re.search(reason, texts[0])
    if case == "gradients":
        assert y.requires_grad
    torch.compiler.reset()
    with torch.enable_grad() if case == "gradients" else torch.no_grad(), pytest.raises(Exception, match=reason):
        compiled(model, strict=True)(x.clone())


def test_gradients_after_inference_come_from_torch() -> None:
    model, x = nn.Conv2d(3, 4, 3).eval(), torch.randn(1, 3, 6, 6)
    fast = compiled(model)
    with torch.no_grad():
        fast(x)
    with pytest.warns(UserWarning, match="gradients are asked for"):
        fast(x).sum().backward()
    assert model.weight.grad is not None


def test_autocast_stays_in_torch() -> None:
    model, x = nn.Conv2d(3, 4, 3).eval(), torch.randn(1, 3, 6, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), pytest.warns(UserWarning, match="autocast is on"):
        assert compiled(model)(x).dtype == torch.bfloat16


def test_layouts_of_inputs() -> None:
    model, x = nn.Conv2d(3, 4, 3).eval(), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        for given in (x.to(memory_format=torch.channels_last), x[:, :, ::2], x.transpose(2, 3), x.requires_grad_()):
            torch.testing.assert_close(compiled(model)(given), model(given), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"speed": 1}, "'speed' not known: choose from tolerance, threads, strict, tune"),
        ({"tolerance": "fast"}, "tolerance='fast' is not understood"),
        ({"threads": 0}, "threads=0 is out of range"),
        ({"tune": 1}, "tune=1 must be True or False"),
    ],
)
def test_bad_options(options: dict[str, Any], match: str) -> None:
    fast = torch.compile(nn.Conv2d(3, 4, 3).eval(), backend="fastcnn", options=options)
    with torch.no_grad(), pytest.raises(Exception, match=match):
        fast(torch.randn(1, 3, 6, 6))


def test_a_mode_is_refused() -> None:
    fast = torch.compile(nn.Conv2d(3, 4, 3).eval(), backend="fastcnn", mode="max-autotune")
    with torch.no_grad(), pytest.raises(Exception, match="mode='max-autotune' is inductor's"):
        fast(torch.randn(1, 3, 6, 6))


def test_threads_call_one_compiled_model() -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    fast = compiled(model)
    inputs = [torch.randn(1, 3, 12, 12) for _ in range(12)]

    def call(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return fast(x)

    call(inputs[0])
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(call, inputs))
    with torch.no_grad():
        for y, x in zip(outputs, inputs, strict=True):
            torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-5)
