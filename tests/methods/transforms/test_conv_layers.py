"""FFTConv2d and WinogradConv2d as layers: settings, conversion, what is declined, caches, errors, costs."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

import fastcnn as fc
from fastcnn.compression.convert import NothingDoneWarning
from fastcnn.methods.contract import ConvSpec, DeclinedError
from fastcnn.methods.transforms.convolution import layer as layer_module
from fastcnn.methods.transforms.convolution import measure
from fastcnn.methods.transforms.convolution.arithmetic import native_products_per_output
from fastcnn.methods.transforms.convolution.counter import count_transforms
from fastcnn.methods.transforms.convolution.first_call import MAX_SIZES
from fastcnn.methods.transforms.convolution.measure import (
    Timing,
    forget_input_shapes,
    input_shape_of,
    record_input_shapes,
)
from fastcnn.methods.transforms.convolution.settings import AUTO, FULL
from fastcnn.methods.transforms.fft_conv import FFTConfig, FFTConv2d
from fastcnn.methods.transforms.winograd_conv import WinogradConfig, WinogradConv2d

KINDS: list[tuple[type[nn.Conv2d], Any]] = [(FFTConv2d, FFTConfig), (WinogradConv2d, WinogradConfig)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize(("cls", "config"), KINDS)
@pytest.mark.parametrize("padding", ["same", "valid", 0, (2, 1)])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_words_and_modes_match_conv2d(cls: Any, config: Any, padding: Any, mode: str) -> None:
    dense = nn.Conv2d(3, 4, (2, 4), padding=padding, dilation=(1, 2), padding_mode=mode)  # type: ignore[arg-type]
    layer = cls.from_dense(dense, config(force=True))
    x = torch.randn(2, 3, 9, 11)
    with warnings.catch_warnings():
        # nn.Conv2d itself warns that an even kernel with "same" needs a padded copy.
        warnings.filterwarnings("ignore", message="Using padding='same'")
        want = dense(x)
    assert torch.allclose(layer(x), want, atol=1e-5)
    assert torch.allclose(layer(x[0]), want[0], atol=1e-5)


@pytest.mark.parametrize(("cls", "config"), KINDS)
def test_conversion_both_ways_loses_nothing(cls: Any, config: Any) -> None:
    dense = nn.Conv2d(6, 4, 3, stride=(1, 2), padding=1, groups=2, padding_mode="circular", dtype=torch.float64).eval()
    dense.weight.requires_grad_(False)
    layer = cls.from_dense(dense, config(force=True))
    back = layer.to_dense()
    assert layer.state_dict().keys() == dense.state_dict().keys() == {"weight", "bias"}
    for key, value in dense.state_dict().items():
        assert torch.equal(value, layer.state_dict()[key])
        assert torch.equal(value, back.state_dict()[key])
        assert value.data_ptr() != layer.state_dict()[key].data_ptr()
    assert (layer.training, back.training) == (False, False)
    assert (layer.weight.requires_grad, back.weight.requires_grad, back.bias.requires_grad) == (False, False, True)
    assert back.extra_repr() == dense.extra_repr()
    file = io.BytesIO()
    torch.save(dense.state_dict(), file)
    file.seek(0)
    other = cls(6, 4, 3, stride=(1, 2), padding=1, groups=2, padding_mode="circular", dtype=torch.float64)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.weight, dense.weight)


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        (FFTConfig(), {"kernel_size": 1}, "1x1 kernel has nothing to transform"),
        (FFTConfig(), {"kernel_size": 5, "groups": 64}, "depthwise"),
        (FFTConfig(), {"kernel_size": 5, "in_channels": 3}, "3 channels and 64 filters per group are too few"),
        (FFTConfig(), {"kernel_size": 5, "out_channels": 31}, "64 channels and 31 filters per group"),
        (FFTConfig(), {"kernel_size": 5, "groups": 4}, "16 channels and 16 filters per group"),
        (FFTConfig(), {"kernel_size": 5, "stride": 2, "dilation": 2}, "stride=2 and dilation=2 on one axis"),
        (FFTConfig(tile=8), {"kernel_size": 9}, "9 taps does not fit in tile=8: choose 16 or 32 or 64 or 'full'"),
        (FFTConfig(tile=16), {"kernel_size": 16}, r"382\.00 multiplications .* save nothing against 256"),
        (FFTConfig(), {"kernel_size": 2, "stride": 2}, r"5\.97 multiplications .* save nothing against 4"),
        (WinogradConfig(), {"kernel_size": 3, "dilation": 2}, r"dilation=\(2, 2\) splits the map"),
        (WinogradConfig(m=2), {"kernel_size": 8}, "8 taps is too long for Winograd"),
        (WinogradConfig(), {"kernel_size": 8}, "8 taps is too long for Winograd .* use FFTConfig"),
        (WinogradConfig(m=9), {"kernel_size": 3}, r"F\(9, 3\) has a tile of 11, and in float32 at most 10 .* m <= 8"),
        (WinogradConfig(m=2), {"kernel_size": 3, "stride": 2, "dilation": 2}, "use nn.Conv2d"),
    ],
)
def test_what_cannot_pay_is_declined_with_the_reason(config: Any, arguments: dict[str, Any], message: str) -> None:
    dense = nn.Conv2d(**({"in_channels": 64, "out_channels": 64} | arguments))
    cls = FFTConv2d if isinstance(config, FFTConfig) else WinogradConv2d
    with pytest.raises(DeclinedError, match=message):
        cls.from_dense(dense, config)


def test_auto_serves_by_force_what_only_direct_convolution_can_do() -> None:
    dense = nn.Conv2d(4, 4, 3, stride=2, dilation=2)
    x = torch.randn(1, 4, 12, 12)
    for cls, config in KINDS:
        layer = cls.from_dense(dense, config(force=True))  # type: ignore[attr-defined]
        with count_transforms() as counter:
            assert torch.allclose(layer(x), dense(x), atol=1e-6)
        assert counter.input == 0
        assert "forced, but convolves directly: stride=2 and dilation=2 on one axis" in repr(layer)
        assert torch.allclose(layer.eval()(x), dense(x), atol=1e-6)
    with pytest.raises(DeclinedError, match="no polyphase form"):
        FFTConv2d.from_dense(dense, FFTConfig(tile=16, force=True))


def test_winograd_declines_complex_weights() -> None:
    with pytest.raises(DeclinedError, match="complex64"):
        WinogradConv2d.from_dense(nn.Conv2d(2, 2, 3, dtype=torch.complex64), WinogradConfig(force=True))


def test_longer_tiles_are_for_float64() -> None:
    layer = WinogradConv2d.from_dense(nn.Conv2d(2, 2, 3, dtype=torch.float64), WinogradConfig(m=10, force=True))
    x = torch.randn(1, 2, 12, 12, dtype=torch.float64)
    assert torch.allclose(layer(x), layer.to_dense()(x), atol=1e-9)
    with pytest.raises(ValueError, match=r"F\(10, 3\) has a tile of 12, and in float32 at most 10"):
        layer.float()(x.float())


class Net(nn.Module):
    """A layer that is declined by rule, two that are timed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3)
        self.large = nn.Conv2d(32, 32, 21, padding=10)
        self.small = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(32)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.small(self.norm(self.large(self.stem(x))))
        return out


def test_sizes_are_noted_without_a_trace_in_the_model() -> None:
    net = Net()
    net.small.eval()
    state = copy.deepcopy(net.state_dict())
    record_input_shapes(net, torch.randn(2, 3, 34, 34))
    assert input_shape_of(net.large) == (2, 32, 32, 32)
    assert input_shape_of(net.small) == (2, 32, 32, 32)
    assert input_shape_of(copy.deepcopy(net).stem) == (2, 3, 34, 34)
    assert (net.training, net.large.training, net.small.training) == (True, True, False)
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in state.items())
    assert not any(module._forward_pre_hooks for module in net.modules())
    record_input_shapes(net, torch.randn(1, 3, 20, 20))
    assert input_shape_of(net.large) == (1, 32, 18, 18)
    assert input_shape_of(nn.Conv2d(1, 1, 1)) is None
    forget_input_shapes(net)
    assert input_shape_of(net.large) is None


def test_measured_time_decides() -> None:
    """21 x 21 taps: 441 multiplications against some ten. 3 x 3 on a map of 5 x 5 in tiles of 64: nothing saved."""
    measure._TIMINGS.clear()
    net = Net()
    record_input_shapes(net, torch.randn(1, 3, 26, 26))
    layer = FFTConv2d.from_dense(net.large, FFTConfig())
    assert layer.chosen.startswith("measured, ")
    assert "forward and backward at (1, 32, 24, 24)" in repr(layer)
    assert layer.weight.grad is None
    assert net.large.weight.grad is None
    tiny = nn.Conv2d(32, 32, 3, padding=1)
    record_input_shapes(tiny, torch.randn(1, 32, 5, 5))
    with pytest.raises(DeclinedError, match=r"it is no faster: .* ms against .* at \(1, 32, 5, 5\); force=True"):
        FFTConv2d.from_dense(tiny, FFTConfig(tile=64))
    assert len(measure._TIMINGS) == 2
    FFTConv2d.from_dense(net.large, FFTConfig())
    assert len(measure._TIMINGS) == 2, "a second layer of the same shape is not timed again"


@pytest.mark.parametrize(("ours", "done"), [(9.0, True), (10.0, False), (11.0, False)])
def test_a_tie_goes_to_torch(monkeypatch: pytest.MonkeyPatch, ours: float, done: bool) -> None:
    def timed(dense: nn.Conv2d, layer: nn.Conv2d, shape: tuple[int, ...]) -> Timing:
        return Timing(ours_ms=ours, dense_ms=10.0, backward=dense.training, shape=shape)

    monkeypatch.setattr(layer_module, "time_against", timed)
    dense = nn.Conv2d(32, 32, 5).eval()
    record_input_shapes(dense, torch.randn(1, 32, 9, 9))
    if done:
        layer = FFTConv2d.from_dense(dense, FFTConfig())
        assert layer.chosen == "measured, 9 ms against 10 ms of nn.Conv2d, forward at (1, 32, 9, 9)"
    else:
        with pytest.raises(DeclinedError, match=f"{ours:g} ms against 10 ms"):
            FFTConv2d.from_dense(dense, FFTConfig())


def test_a_cap_too_small_for_one_picture_declines_the_layer() -> None:
    dense = nn.Conv2d(32, 32, 5)
    record_input_shapes(dense, torch.randn(1, 32, 9, 9))
    with pytest.raises(DeclinedError, match="memory=1000 bytes is too small"):
        FFTConv2d.from_dense(dense, FFTConfig(memory=1000))
    with pytest.warns(NothingDoneWarning, match="memory=1000 bytes is too small"):
        fc.convert(nn.Sequential(dense), FFTConfig(memory=1000), data=torch.randn(1, 32, 9, 9))


def test_one_number_stands_for_both_axes_of_a_dense_layer() -> None:
    dense = nn.Conv2d(2, 3, 3, stride=(2,), padding=(1,), dilation=(1,))  # type: ignore[arg-type]
    x = torch.randn(1, 2, 9, 9)
    assert torch.allclose(FFTConv2d.from_dense(dense, FFTConfig(force=True))(x), dense(x), atol=1e-5)


class Stopwatch:
    """Takes the place of ``time_against``: ours takes what the test says, against 10 ms; notes what it was asked."""

    def __init__(self) -> None:
        self.ours_ms = 10.0
        self.asked: list[tuple[tuple[int, ...], bool]] = []

    def __call__(self, dense: nn.Conv2d, layer: nn.Conv2d, shape: tuple[int, ...]) -> Timing:
        backward = dense.training and dense.weight.requires_grad
        self.asked.append((shape, backward))
        assert type(dense) is nn.Conv2d
        assert (layer.training, layer.weight.requires_grad) == (dense.training, dense.weight.requires_grad)
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert not torch.is_inference_mode_enabled()
        with count_transforms() as counter:
            layer(torch.zeros(shape, dtype=layer.weight.dtype))
        assert counter.input > 0, "it runs its own algorithm meanwhile"
        return Timing(ours_ms=self.ours_ms, dense_ms=10.0, backward=backward, shape=shape)


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    watch = Stopwatch()
    monkeypatch.setattr(layer_module, "time_against", watch)
    return watch


def transforms_of(layer: nn.Module, x: Tensor) -> int:
    """Tiles of the input that a call transforms, once its result is as ``nn.Conv2d``'s."""
    with count_transforms() as counter:
        out = layer(x)
    want = layer.to_dense()(x).detach()  # type: ignore[operator]
    assert float((out.detach() - want).abs().max()) <= 4e-5 * float(want.abs().max())
    return counter.input


@pytest.mark.parametrize(("cls", "config"), KINDS)
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_without_a_size_the_first_call_decides(stopwatch: Stopwatch, cls: Any, config: Any, mode: str) -> None:
    dense = nn.Conv2d(32, 32, 3, padding=1, padding_mode=mode)  # type: ignore[arg-type]
    layer = cls.from_dense(dense, config())
    assert layer.chosen == "undecided: timed in its first call"
    x = torch.randn(2, 32, 9, 8)
    state = torch.get_rng_state()
    with torch.no_grad():
        layer(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert stopwatch.asked == [((2, 32, 9, 8), True)]
    assert layer.chosen == (
        "convolves directly: it is no faster: 10 ms against 10 ms of nn.Conv2d, forward and backward at (2, 32, 9, 8)"
    )
    assert transforms_of(layer, x) == transforms_of(layer, x[0]) == 0
    stopwatch.ours_ms = 9.0
    layer.eval()
    assert transforms_of(layer, x) > 0
    assert stopwatch.asked[1:] == [((2, 32, 9, 8), False)]
    assert layer.chosen == ("measured in its first call, 9 ms against 10 ms of nn.Conv2d, forward at (2, 32, 9, 8)")
    assert transforms_of(layer, x[:1]) > 0
    with torch.inference_mode():
        layer(torch.randn(1, 32, 8, 8))
    layer.train().weight.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(3, 32, 8, 9)).dtype == torch.bfloat16
    assert stopwatch.asked[2:] == [((1, 32, 8, 8), False), ((3, 32, 8, 9), False)]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert transforms_of(other.requires_grad_(True), x) == 0
        assert transforms_of(other.eval(), x) > 0
        assert other.chosen == layer.chosen
    assert len(stopwatch.asked) == 4
    assert transforms_of(layer.eval().double(), x.double()) > 0
    assert len(stopwatch.asked) == 5


def test_layers_made_by_hand_or_by_force_are_not_timed(stopwatch: Stopwatch) -> None:
    x = torch.randn(1, 32, 8, 8)
    dense = nn.Conv2d(32, 32, 5)
    for layer in (FFTConv2d(32, 32, 5), FFTConv2d.from_dense(dense, FFTConfig(force=True))):
        assert transforms_of(layer, x) > 0
    record_input_shapes(dense, x)
    stopwatch.ours_ms = 9.0
    assert transforms_of(FFTConv2d.from_dense(dense, FFTConfig()), x) > 0
    assert len(stopwatch.asked) == 1


def test_a_traced_call_is_not_timed(stopwatch: Stopwatch) -> None:
    layer = FFTConv2d.from_dense(nn.Conv2d(32, 32, 5), FFTConfig())
    x = torch.randn(1, 32, 8, 8)
    assert "fastcnn.fft_conv2d" in str(torch.export.export(layer, (x,)).graph)
    assert transforms_of(torch.compile(layer, backend="eager", fullgraph=True), x) > 0  # type: ignore[arg-type]
    assert (stopwatch.asked, layer.chosen) == ([], "undecided: timed in its first call")


def test_a_cap_too_small_in_the_first_call_means_directly() -> None:
    layer = FFTConv2d.from_dense(nn.Conv2d(32, 32, 5), FFTConfig(memory=1000))
    assert transforms_of(layer, torch.randn(1, 32, 9, 9)) == 0
    assert layer.chosen.startswith("convolves directly: memory=1000 bytes is too small")


def test_many_sizes_are_not_all_timed(stopwatch: Stopwatch) -> None:
    layer = FFTConv2d.from_dense(nn.Conv2d(32, 32, 5), FFTConfig()).eval()
    for width in range(8, 8 + MAX_SIZES):
        stopwatch.ours_ms = float(width)
        layer(torch.randn(1, 32, 9, width))
    assert transforms_of(layer, torch.randn(1, 32, 9, 7)) > 0
    assert transforms_of(layer, torch.randn(1, 32, 9, 99)) == 0
    assert len(stopwatch.asked) == MAX_SIZES


def test_the_first_call_leaves_no_trace_in_training() -> None:
    """Measured in earnest: gradients, random numbers, hooks and saved tensors are as without the timing."""
    measure._TIMINGS.clear()
    seen: list[str] = []
    layer = FFTConv2d.from_dense(nn.Conv2d(32, 32, 5, padding=2), FFTConfig())
    other = FFTConv2d.from_dense(layer.to_dense(), FFTConfig(force=True))
    layer.weight.register_hook(lambda grad: seen.append("gradient"))
    x = torch.randn(2, 32, 8, 8)
    state = torch.get_rng_state()
    checkpoint(layer, x, use_reentrant=False).square().mean().backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert seen == ["gradient"]
    assert len(measure._TIMINGS) == 1
    assert "forward and backward at (2, 32, 8, 8)" in layer.chosen
    other(x).square().mean().backward()
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, other.weight.grad, atol=1e-5)


def test_parametrized_layers_are_timed_too(stopwatch: Stopwatch) -> None:
    layer = spectral_norm(FFTConv2d.from_dense(nn.Conv2d(32, 32, 5), FFTConfig()))
    layer(torch.randn(1, 32, 8, 8)).sum().backward()
    assert len(stopwatch.asked) == 1


def test_the_rule_counts_native_multiplications() -> None:
    """3x3 with stride 2: four kernels of 2 taps, 4 (1.5 16^2 - 2) / 15^2 against 9; torch's ops take 9.03."""
    rate = native_products_per_output(AUTO, (3, 3), (2, 2))
    assert rate == pytest.approx(4 * 382 / 225)
    layer = FFTConv2d.from_dense(nn.Conv2d(32, 32, 3, stride=2), FFTConfig())
    assert layer.theory().macs == pytest.approx(9.03 * 32 * 32, abs=5)
    assert native_products_per_output(FULL, (7, 7), (2, 2)) == 6.0
    assert native_products_per_output(8, (1, 3)) == pytest.approx(94 / 48)


def test_convert_reports_every_layer() -> None:
    net = Net()
    done = fc.convert(net, FFTConfig())
    lines = {line.layer: line for line in fc.report(done)}
    assert {name: line.status for name, line in lines.items()} == {
        "stem": "declined",
        "large": "done",
        "small": "done",
    }
    assert "too few" in lines["stem"].why
    line = lines["large"]
    assert line.weight_error == 0.0
    assert (line.params_before, line.bytes_before) == (line.params_after, line.bytes_after)
    assert line.macs_after < line.macs_before / 10
    assert "undecided: timed in its first call" in line.why
    assert type(done.large) is FFTConv2d
    assert type(net.large) is nn.Conv2d
    with pytest.warns(NothingDoneWarning, match="WinogradConfig changed nothing: stem: 3 channels"):
        fc.convert(net, WinogradConfig(), layers="stem")


@pytest.mark.parametrize(("cls", "config"), KINDS)
def test_the_weight_is_transformed_once_for_inference(cls: Any, config: Any) -> None:
    layer = cls(8, 8, 3).eval()
    x = torch.randn(2, 8, 12, 12)

    def transforms(**changes: Any) -> int:
        with torch.no_grad(), count_transforms() as counter:
            out = layer(changes.get("x", x))
            want = layer.to_dense()(changes.get("x", x))
        assert float((out - want).abs().max()) <= 4e-5 * float(want.abs().max())
        return counter.kernel

    assert (transforms(), transforms(), transforms()) == (64, 0, 0)
    with torch.no_grad():
        layer.weight.mul_(2)
    assert (transforms(), transforms()) == (64, 0)
    layer.load_state_dict({key: value + 1 for key, value in layer.state_dict().items()})
    assert (transforms(), transforms()) == (64, 0)
    layer.weight.data = layer.weight.data.clone()
    assert (transforms(), transforms()) == (64, 0)
    layer.weight = nn.Parameter(layer.weight.detach() + 1)
    assert (transforms(), transforms()) == (64, 0)
    layer.double()
    assert (transforms(x=x.double()), transforms(x=x.double())) == (64, 0)
    layer.float()
    assert transforms() == 64
    layer.train()
    layer.weight.data.mul_(3)  # unseen by the version counter
    layer.eval()
    assert (transforms(), transforms()) == (64, 0)
    with count_transforms() as counter:
        layer(x)
    assert counter.kernel == 64, "with gradients on nothing is kept"
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with torch.no_grad(), count_transforms() as counter:
            assert torch.equal(other(x), layer(x))
        assert counter.kernel == 64
    with torch.inference_mode():
        assert transforms() == 0


def test_the_kept_weight_belongs_to_the_very_tensor() -> None:
    """A weight put in for one call, gone after it, and another at the same address with the same version."""
    layer = FFTConv2d(2, 2, 3, bias=False).eval()
    x = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        for value in (1.0, 2.0, 3.0):
            weight = torch.full((2, 2, 3, 3), value)
            got = torch.func.functional_call(layer, {"weight": weight}, (x,))
            assert torch.allclose(got, torch.nn.functional.conv2d(x, weight), atol=1e-4)
            del weight


def test_another_map_size_needs_another_transform_only_for_the_whole_map() -> None:
    small, large = torch.randn(1, 4, 10, 10), torch.randn(1, 4, 30, 30)
    for tile, wanted in ((8, 0), ("full", 16)):
        layer = FFTConv2d(4, 4, 3, tile=tile).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            layer(small)
            with count_transforms() as counter:
                assert torch.allclose(layer(large), layer.to_dense()(large), atol=1e-4)
        assert counter.kernel == wanted


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FFTConfig(tile=12), ValueError, "tile=12 is not supported: choose 'auto', 'full', 8, 16, 32, 64"),
        (lambda: FFTConfig(tile="whole"), ValueError, "tile='whole' is not supported: choose from 'auto', 'full'"),
        (lambda: FFTConfig(tile=8.0), TypeError, "tile must be 'auto', 'full' or an integer, got float"),
        (lambda: FFTConfig(memory=0), ValueError, "memory=0 is out of range: it must be at least 1"),
        (lambda: FFTConfig(memory=1e6), TypeError, "memory must be an integer, got float"),
        (lambda: FFTConfig(save_spectra=1), TypeError, "save_spectra must be True or False, got 1"),
        (lambda: FFTConfig(force="yes"), TypeError, "force must be True or False, got 'yes'"),
        (lambda: WinogradConfig(m=0), ValueError, "m=0 is out of range: it must be between 1 and 13"),
        (lambda: WinogradConfig(m=2.0), TypeError, "m must be an integer, got float"),
        (lambda: WinogradConfig(memory=-1), ValueError, "memory=-1"),
        (lambda: WinogradConfig(force=None), TypeError, "force must be True or False, got None"),
        (lambda: FFTConv2d(2, 2, 9, tile=8), ValueError, "9 taps does not fit in tile=8"),
        (lambda: FFTConv2d(2, 2, 3, 2, 0, 2, tile="full"), ValueError, "stride=2 and dilation=2"),
        (lambda: FFTConv2d(3, 2, 3, groups=2), ValueError, "in_channels must be divisible by groups"),
        (lambda: WinogradConv2d(2, 2, 9, m=2), ValueError, "use FFTConfig"),
        (lambda: FFTConv2d(2, 2, (3,)), ValueError, r"kernel_size=\(3,\) has 1 values: give an integer or a pair"),
        (lambda: WinogradConv2d(2, 2, (3, 3, 3)), ValueError, r"kernel_size=\(3, 3, 3\) has 3 values"),
        (lambda: FFTConv2d(2, 2, 0), ValueError, "kernel_size=0 is out of range: it must be at least 1"),
        (lambda: FFTConv2d(2, 2, 3.0), TypeError, r"kernel_size must be an integer or a pair .* got float 3\.0"),
        (lambda: FFTConv2d(2, 2, (3, True)), TypeError, "kernel_size must be an integer .* got tuple"),
        (lambda: FFTConv2d(2, 2, "3"), TypeError, "kernel_size must be an integer .* got str '3'"),
        (lambda: FFTConv2d(2, 2, 3, stride=0), ValueError, "stride=0 is out of range: it must be at least 1"),
        (lambda: WinogradConv2d(2, 2, 3, stride=(1, -1)), ValueError, r"stride=\(1, -1\) is out of range"),
        (lambda: FFTConv2d(2, 2, 3, dilation=0), ValueError, "dilation=0 is out of range: it must be at least 1"),
        (lambda: FFTConv2d(2, 2, 3, padding=-1), ValueError, "padding=-1 is out of range: it must be at least 0"),
        (lambda: FFTConv2d(2, 2, 3, padding=None), TypeError, "padding must be an integer or a pair .* got NoneType"),
        (lambda: FFTConv2d(2, 2, 3, padding="some"), ValueError, "padding"),
        (lambda: FFTConv2d(2, 2, 3, dtype=torch.complex64), ValueError, r"dtype=torch\.complex64 .* choose torch\.fl"),
        (lambda: WinogradConv2d(2, 2, 3, dtype=torch.int8), ValueError, r"dtype=torch\.int8 is not supported"),
        (lambda: FFTConv2d(2, 2, 3, dtype="float32"), TypeError, "dtype must be a torch.dtype, got str 'float32'"),
    ],
)
def test_bad_settings_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(("cls", "config"), KINDS)
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(8), ValueError, r"3 or 4 dimensions, got shape \(8,\)"),
        (torch.zeros(1, 4, 8, 8), ValueError, r"3 channels on axis -3, got shape \(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), TypeError, r"must be floating point, got torch\.int64"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), TypeError, "float64 but its weights are torch.float32"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), TypeError, "floating point, got torch.complex64"),
        (np.zeros((1, 3, 8, 8)), TypeError, "must be a torch.Tensor, got ndarray"),
        (torch.zeros(1, 3, 3, 8), ValueError, "padded height 5, but its kernel reaches over 7"),
        (torch.zeros(2, 3, 8, 0), ValueError, "padded width 2, but its kernel reaches over 3"),
    ],
)
def test_bad_inputs_are_named(cls: Any, config: Any, x: Any, error: type[Exception], message: str) -> None:
    layer = cls(3, 4, (4, 3), padding=1, dilation=(2, 1))
    with pytest.raises(error, match=f"input of {cls.__name__}.*{message}"):
        layer(x)


def test_cost_is_the_formula() -> None:
    spec = ConvSpec(in_channels=64, out_channels=32, kernel_size=(5, 5), output_size=(28, 28))
    # 3 x 3 tiles of 12 outputs; (2 * 256 - 4) products each.
    cost = FFTConv2d.cost(FFTConfig(tile=16), spec)
    assert cost.macs == 9 * 508 * 64 * 32
    assert (cost.params, cost.param_bytes) == (64 * 32 * 25 + 32, 4 * (64 * 32 * 25 + 32))
    assert cost.workspace_bytes == 8 * 16 * 9 * (9 * 64 + 64 * 32 + 9 * 32)
    # 7 x 7 tiles of 4 outputs, 64 products; 14 x 14 of 2 outputs, 36 products.
    assert WinogradConv2d.cost(WinogradConfig(), spec).macs == 7 * 7 * 64 * 64 * 32
    assert WinogradConv2d.cost(WinogradConfig(m=2), spec).macs == 14 * 14 * 36 * 64 * 32
    long = ConvSpec(in_channels=3, out_channels=2, kernel_size=(9, 1), output_size=(4, 5))
    assert WinogradConv2d.cost(WinogradConfig(), long).macs == long.dense_macs
    grouped = ConvSpec(in_channels=64, out_channels=32, kernel_size=(3, 1), groups=2, output_size=(6, 5), bias=False)
    assert WinogradConv2d.cost(WinogradConfig(m=3), grouped).macs == 2 * 5 * 5 * 32 * 32
    assert FFTConv2d.cost(FFTConfig(tile="full"), grouped).macs == (2 * 8 - 2) * 5 * 32 * 32


@pytest.mark.parametrize(
    ("tile", "kernel", "rate"),
    [(8, 3, 3.44), (16, 3, 2.59), (32, 3, 2.27), (8, 5, 7.75), (16, 5, 3.53), (32, 5, 2.61), (16, 7, 5.08)],
)
def test_multiplications_per_output_are_those_of_the_table(tile: Any, kernel: int, rate: float) -> None:
    layer = FFTConv2d(1, 100, kernel, tile=tile)
    assert layer.theory().macs == pytest.approx(100 * rate, abs=0.6)


@pytest.mark.parametrize(
    ("m", "kernel", "rate"), [(2, 3, 4.0), (4, 3, 2.25), (6, 3, 1.78), (2, 5, 9.0), (4, 5, 4.0), (6, 5, 2.78)]
)
def test_winograd_multiplications_are_those_of_the_table(m: int, kernel: int, rate: float) -> None:
    assert WinogradConv2d(1, 100, kernel, m=m).theory().macs == pytest.approx(100 * rate, abs=0.6)
