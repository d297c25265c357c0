"""Labels under Winograd: nets, pictures, training and its resuming, every way's layers, gates, refusals, the record."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastcnn._native", reason="fastcnn._native is not built: make build")

import torch
from safetensors.torch import save_file
from torch import nn

from fastcnn import _native
from fastcnn.data import DataError
from fastcnn.reproduction.winograd_labels import __main__ as command
from fastcnn.reproduction.winograd_labels import measure, train
from fastcnn.reproduction.winograd_labels.nets import ResNet20, vgg_like
from fastcnn.reproduction.winograd_labels.pictures import SHIFT, Pictures, ShiftedBatches, load_pictures
from tests.models.cifar_resnet import cifar_resnet20
from tests.models.pretrained import load_pretrained

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "winograd_labels.json"
LANES = int(_native.lanes(str(_native.host()["isa_active"])))


def fake_cifar(folder: Path, *, train_count: int = 10, test_count: int = 20) -> tuple[Any, Any]:
    """CIFAR-10's binary files, ``train_count`` pictures in each of five; returns the test pictures (NHWC), labels."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    files = [(f"data_batch_{i}.bin", train_count) for i in range(1, 6)] + [("test_batch.bin", test_count)]
    for name, count in files:
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
        (folder / name).write_bytes(np.concatenate([labels[:, None], images.reshape(count, -1)], axis=1).tobytes())
    return images.transpose(0, 2, 3, 1), labels


def random_pictures(count: int, *, seed: int = 0) -> Pictures:
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.standard_normal((count, 3, 32, 32)).astype(np.float32))
    return Pictures(inputs=inputs, labels=torch.from_numpy(rng.integers(0, 10, count)), sha256=f"seed {seed}")


def lively(net: nn.Module) -> nn.Module:
    """Batch norm with statistics of its own, so that folding and order matter."""
    rng = torch.Generator().manual_seed(1)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(0.3 * torch.randn(layer.num_features, generator=rng))
            layer.running_var.copy_(0.5 + torch.rand(layer.num_features, generator=rng))
    return net.eval()


def wide_layers(net: nn.Module) -> list[str]:
    """Layers that F(4,3) serves, without those narrower than a vector: the first, on most machines."""
    layers = {name: net.get_submodule(name) for name in measure.winograd_layers(net)}
    return [name for name, layer in layers.items() if layer.in_channels >= LANES]


# Nets and pictures.


def test_resnet_20_is_the_published_one() -> None:
    torch.manual_seed(0)
    theirs = lively(cifar_resnet20())
    mine = ResNet20()
    mine.load_state_dict(theirs.state_dict())
    x = random_pictures(3).inputs
    with torch.no_grad():
        assert torch.allclose(mine.eval()(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in mine.parameters()) == 269_722


def test_the_plain_net_is_that_of_the_specification() -> None:
    net = vgg_like()
    convolutions = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [32, 32, 64, 64, 128, 128]
    assert [type(layer) for layer in net].count(nn.MaxPool2d) == 3
    assert [layer.out_features for layer in net if isinstance(layer, nn.Linear)] == [256, 10]
    assert sum(p.numel() for p in net.parameters()) == 814_570
    macs = 32**2 * 9 * (3 * 32 + 32 * 32) + 16**2 * 9 * (32 * 64 + 64 * 64) + 8**2 * 9 * (64 * 128 + 128 * 128)
    assert macs + 2048 * 256 + 2560 == pytest.approx(39e6, rel=0.01)
    assert net.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_pictures_are_normalised_and_hashed(tmp_path: Path) -> None:
    images, labels = fake_cifar(tmp_path)
    found = load_pictures(tmp_path, "test")
    expected = (images.astype(np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(found.inputs.numpy() - expected.transpose(0, 3, 1, 2)).max() < 1e-6
    assert found.inputs.dtype == torch.float32
    assert found.inputs.is_contiguous(memory_format=torch.channels_last)
    assert found.labels.tolist() == labels.tolist()
    assert found.sha256 == hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert len(load_pictures(tmp_path, "train")) == 50
    with pytest.raises(DataError, match="does not exist"):
        load_pictures(tmp_path / "none", "test")


def test_batches_hold_every_picture_once_shifted_and_mirrored() -> None:
    pictures = random_pictures(24)
    torch.manual_seed(3)
    batches = ShiftedBatches(pictures, batch_size=10)
    assert [len(labels) for _, labels in batches] == [10, 10, 4]
    assert len(batches) == 3
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    padded = np.zeros((24, 3, 32 + 2 * SHIFT, 32 + 2 * SHIFT), np.float32)
    padded[:, :, SHIFT:-SHIFT, SHIFT:-SHIFT] = pictures.inputs.numpy()
    found = []
    for picture, label in zip(inputs.numpy(), labels.tolist(), strict=True):
        matches = [
            (i, top, left, mirrored)
            for i in range(24)
            for top in range(2 * SHIFT + 1)
            for left in range(2 * SHIFT + 1)
            for mirrored in (False, True)
            if np.array_equal(padded[i, :, top : top + 32, left : left + 32][:, :, :: -1 if mirrored else 1], picture)
        ]
        assert len(matches) == 1
        assert label == pictures.labels[matches[0][0]]
        found.append(matches[0])
    assert sorted(i for i, *_ in found) == list(range(24)) != [i for i, *_ in found]
    assert len({top for _, top, _, _ in found}) > 4
    assert len({left for _, _, left, _ in found}) > 4
    assert 4 < sum(mirrored for *_, mirrored in found) < 20
    torch.manual_seed(3)
    first, second = (torch.cat([x for x, _ in batches]) for _ in range(2))
    assert torch.equal(second, inputs), "the order is that of the seed and of the passes before"
    assert not torch.equal(first, second)


# Training.


def test_the_rate_goes_up_and_down_once() -> None:
    assert [train.one_cycle(done) for done in (0, train.WARM / 2, train.WARM, (1 + train.WARM) / 2, 1)] == (
        pytest.approx([0, 0.5, 1, 0.5, 0])
    )


def test_the_optimizer_steps_by_nesterovs_rule_and_resumes() -> None:
    """By hand in float64: v = 0.9 v + g, p -= rate (g + 0.9 v), g with weight decay."""
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(4), rng.standard_normal((6, 4))

    def optimizer(p: nn.Parameter) -> train.OneCycleSGD:
        return train.OneCycleSGD([p], lr=0.2, weight_decay=0.01, total_steps=6)

    expected, velocity = start.copy(), np.zeros(4)
    for number, gradient in enumerate(gradients):
        done = (number + 0.5) / 6
        rate = 0.2 * (done / 0.25 if done < 0.25 else (1 - done) / 0.75)
        g = gradient + 0.01 * expected
        velocity = 0.9 * velocity + g
        expected = expected - rate * (g + 0.9 * velocity)
    parameter = nn.Parameter(torch.from_numpy(start.copy()))
    ours = optimizer(parameter)
    for number, gradient in enumerate(gradients):
        if number == 3:
            parameter = nn.Parameter(parameter.detach().clone())
            state, ours = copy.deepcopy(ours.state_dict()), optimizer(parameter)
            ours.load_state_dict(state)
        for group in ours.param_groups:
            group["lr"] = 123.0  # what a loop sets does not matter
        parameter.grad = torch.from_numpy(gradient)
        ours.step()
    assert parameter.detach().numpy() == pytest.approx(expected, rel=1e-12)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "BATCH", 10)
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 3)
    monkeypatch.setattr(train, "commit", lambda: "first")


def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five steps an epoch, checkpoints every third: stopped after the tenth step, it goes on from the ninth."""
    fake_cifar(tmp_path / "data")

    def call(folder: str) -> list[str]:
        return ["--data", str(tmp_path / "data"), "--folder", str(tmp_path / folder), "--epochs", "3", "--seed", "7"]

    assert train.main(call("whole")) == 0
    real, asked = train.top1, []

    def top1(*args: Any) -> float:
        asked.append(0)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(train, "top1", top1)
    assert train.main(call("parts")) == 130
    assert "holds a checkpoint; run again to go on" in capsys.readouterr().err
    assert not (tmp_path / "parts" / train.WEIGHTS).exists()
    monkeypatch.setattr(train, "commit", lambda: "second")
    assert train.main(call("parts")) == 0
    whole, parts = (json.loads((tmp_path / name / train.RECORD).read_text()) for name in ("whole", "parts"))
    assert len(asked) == 4, "the second epoch's end came twice, the first's once"
    assert whole["weights_sha256"] == parts["weights_sha256"]
    assert whole["weights_sha256"] == hashlib.sha256((tmp_path / "whole" / train.WEIGHTS).read_bytes()).hexdigest()
    assert [e["loss"] for e in whole["curve"]] == [e["loss"] for e in parts["curve"]]
    assert [e["epoch"] for e in parts["curve"]] == [0, 1, 2]
    assert [s["commit"] for s in whole["sittings"]] == ["first"]
    assert [s["commit"] for s in parts["sittings"]] == ["first", "second"]
    assert (parts["seed"], parts["epochs"], parts["params"]) == (7, 3, 814_570)
    assert parts["accuracy"] == parts["curve"][-1]["metric"] == whole["accuracy"]
    net, digest = command.load_net("vgg_like", tmp_path / "parts" / train.WEIGHTS)
    assert digest == parts["weights_sha256"]
    assert real(net, load_pictures(tmp_path / "data", "test")) == parts["accuracy"]

    written = (tmp_path / "parts" / train.WEIGHTS).stat().st_mtime_ns
    assert train.main(call("parts")) == 0
    assert "the net is trained" in capsys.readouterr().err
    assert (tmp_path / "parts" / train.WEIGHTS).stat().st_mtime_ns == written


def test_a_folder_of_another_run_and_bad_numbers_are_refused(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = tmp_path / "data", tmp_path / "run"
    fake_cifar(data)

    def stop(*args: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "top1", stop)
    call = ["--data", str(data), "--folder", str(folder)]
    assert train.main([*call, "--epochs", "1"]) == 130
    capsys.readouterr()
    assert train.main([*call, "--epochs", "2", "--seed", "1"]) == 2
    assert f"error: --folder: {folder} holds a run with other seed, epochs" in capsys.readouterr().err
    fake_cifar(data, test_count=30)
    assert train.main([*call, "--epochs", "1"]) == 2
    assert "other data_sha256" in capsys.readouterr().err
    (folder / "run.json").write_text("[]", encoding="utf-8")
    assert train.main([*call, "--epochs", "1"]) == 2
    assert "error: --folder: " in capsys.readouterr().err
    for name, value in (("epochs", "0"), ("seed", "-1"), ("threads", "0")):
        assert train.main([*call, f"--{name}", value]) == 2
        assert f"error: --{name}: {value} is below" in capsys.readouterr().err
    assert train.main(["--data", str(tmp_path / "none"), "--folder", str(tmp_path / "new")]) == 2
    assert "error: --data: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


# The four ways.


def test_f43_serves_3x3_layers_of_stride_1_in_one_group() -> None:
    layers = [
        nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, stride=2), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, (3, 1)), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 5), nn.Conv2d(4, 8, 3, padding=1),
    ]  # fmt: skip
    assert measure.winograd_layers(nn.Sequential(*layers)) == ["0", "7"]
    served = measure.winograd_layers(ResNet20())
    assert len(served) == 17
    assert not {"layer2.0.conv1", "layer3.0.conv1"} & set(served)


def test_in_torch_every_served_layer_is_winograds_and_no_other() -> None:
    net = ResNet20().eval()
    fast = measure.by_winograd(net)
    for name, layer in fast.named_modules():
        if isinstance(layer, nn.Conv2d):
            assert getattr(layer, "m", None) == (4 if name in measure.winograd_layers(net) else None)
            assert torch.equal(layer.weight, net.get_submodule(name).weight)


def test_a_layer_that_torch_would_convolve_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure.fastcnn, "convert", lambda net, *_, **__: net)
    with pytest.raises(RuntimeError, match=r"layer 0 is not convolved by F\(4,3\)"):
        measure.by_winograd(vgg_like())


@pytest.mark.parametrize("winograd", [False, True])
def test_the_engine_runs_the_kernels_asked_for(winograd: bool) -> None:
    net = lively(vgg_like())
    compiled, layers = measure.by_engine(net, random_pictures(2).inputs, winograd=winograd)
    kernels = {step.source: step.kernel for step in compiled.plan.steps if step.source in measure.winograd_layers(net)}
    assert len(kernels) == 6
    assert layers == (wide_layers(net) if winograd else [])
    for name, kernel in kernels.items():
        assert ("winograd_f32_f4x4k3x3_" if name in layers else "direct") in kernel
        assert ("direct" in kernel) != ("winograd" in kernel)


def test_a_kernel_that_the_engine_does_not_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """F(4,3) on a map of two pixels saves nothing, and is not offered."""
    tiny = nn.Sequential(nn.Conv2d(LANES, LANES, 1), nn.Conv2d(LANES, LANES, 3, padding=1)).eval()
    compiled, layers = measure.by_engine(tiny, torch.zeros(1, LANES, 8, 8), winograd=True)
    assert layers == ["1"]
    assert any("winograd" in step.kernel for step in compiled.plan.steps)
    with pytest.raises(RuntimeError, match=r"the engine runs layer 1 with .* where winograd_f32_f4x4k3x3_ was asked"):
        measure.by_engine(tiny, torch.zeros(1, LANES, 1, 2), winograd=True)


@pytest.mark.parametrize("way", measure.WAYS)
def test_every_way_gives_the_logits_of_float64(way: Any) -> None:
    torch.manual_seed(0)
    net = lively(ResNet20())
    pictures = random_pictures(6)
    seen: list[int] = []
    logits, layers = measure.logits_by(way, net, pictures, seen.append)
    reference = copy.deepcopy(net).double()
    with torch.no_grad():
        y64 = torch.cat([reference(x[None].double()) for x in pictures.inputs]).numpy()
    error = max(np.abs(y - e).max() / np.abs(e).max() for y, e in zip(logits, y64, strict=True))
    assert 0 < error < 2e-5
    assert logits.dtype == np.float32
    assert sum(seen) == 6
    expected = {"torch_winograd": measure.winograd_layers(net), "native_winograd": wide_layers(net)}
    assert layers == expected.get(way, [])
    assert measure.exact_logits(net, pictures) == pytest.approx(y64, rel=1e-10, abs=1e-10)
    assert next(net.parameters()).dtype == torch.float32


def test_pictures_go_through_in_batches_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BATCH", 4)
    monkeypatch.setattr(measure, "ERROR_PICTURES", 3)
    net = lively(vgg_like())
    pictures = random_pictures(9)
    seen: list[int] = []
    logits, _ = measure.logits_by("native_winograd", net, pictures, seen.append)
    assert seen == [3, 3, 3]
    with torch.no_grad():
        assert logits == pytest.approx(net(pictures.inputs).numpy(), rel=1e-3, abs=1e-4)
    assert measure.exact_logits(net, pictures).shape == (3, 10), "every third"


def test_ways_are_judged_by_labels_accuracy_and_error() -> None:
    labels = np.array([0, 1, 2, 0])
    pictures = Pictures(inputs=torch.zeros(4, 3, 1, 1), labels=torch.from_numpy(labels), sha256="")
    direct = np.array([[3, 1, 0], [0, 4, 1], [5, 0, 2], [2, 1, 0]], np.float32)  # the third is wrong
    other = direct.copy()
    other[0] = [3, 3.5, 0]  # now wrong
    other[2] = [0, 5, 2]  # still wrong, but another label
    exact = direct.astype(np.float64)
    exact[3] = [2.5, 1, 0]
    found = measure.judge({"torch_direct": direct, "native_winograd": other}, exact, pictures)
    assert found["torch_direct"] == {
        "accuracy": 75.0, "accuracy_change": 0.0, "same_labels": 100.0, "other_labels": 0, "error": pytest.approx(0.2),
    }  # fmt: skip
    assert found["native_winograd"] == {
        "accuracy": 50.0, "accuracy_change": -25.0, "same_labels": 50.0, "other_labels": 2, "error": 1.0,
    }  # fmt: skip


# Gates, the command and its record.


def judged(**changes: float) -> dict[Any, dict[str, float]]:
    same = {"accuracy": 90.0, "accuracy_change": 0.0, "same_labels": 100.0, "other_labels": 0, "error": 1e-6}
    return {way: dict(same) for way in measure.WAYS} | {"native_winograd": same | changes}


def test_the_gates_hold_at_their_limits_and_not_beyond() -> None:
    assert command.holds(judged())
    assert command.holds(judged(same_labels=99.9, accuracy_change=-0.05))
    assert command.holds(judged(accuracy_change=90.05 - 90.0)), "the difference of two rounded figures"
    assert not command.holds(judged(same_labels=99.89))
    assert not command.holds(judged(accuracy_change=0.06)), "better labels are other labels"
    assert not command.holds(judged(accuracy_change=-0.06))
    assert not command.holds({way: found for way, found in judged().items() if way != "torch_winograd"})
    nets = {name: {"ways": judged()} for name in command.NETS}
    assert command.summary(nets, {"commit": "1"})["passed"] is True
    assert command.summary({"resnet20": nets["resnet20"]}, {})["passed"] is False
    assert command.summary(nets | {"vgg_like": {"ways": judged(same_labels=99.0)}}, {})["passed"] is False


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command's arguments for random weights and a few pictures."""
    fake_cifar(tmp_path / "data")
    torch.manual_seed(0)
    (tmp_path / "vgg").mkdir()
    state = {key: value for key, value in ResNet20().state_dict().items() if not key.endswith("tracked")}
    save_file(state, tmp_path / "resnet20.safetensors")
    save_file(vgg_like().state_dict(), tmp_path / "vgg" / train.WEIGHTS)
    digest = hashlib.sha256((tmp_path / "vgg" / train.WEIGHTS).read_bytes()).hexdigest()
    (tmp_path / "vgg" / train.RECORD).write_text(json.dumps({"weights_sha256": digest, "seed": 5}), encoding="utf-8")
    monkeypatch.setattr(command, "commit", lambda: "first")
    return [
        "--data", str(tmp_path / "data"), "--resnet20", str(tmp_path / "resnet20.safetensors"),
        "--vgg", str(tmp_path / "vgg"), "--out", str(tmp_path / "results" / "record.json"),
    ]  # fmt: skip


def test_a_small_run_writes_a_full_record(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = command.main(place)
    document = json.loads(Path(place[-1]).read_text(encoding="utf-8"))
    assert code == (0 if document["passed"] else 1)
    assert list(document["nets"]) == ["resnet20", "vgg_like"]
    for net in document["nets"].values():
        assert list(net["ways"]) == list(measure.WAYS)
        assert net["pictures"] == net["error_pictures"] == 20
        assert all(0 < found["error"] < 1e-4 for found in net["ways"].values())
        assert net["layers"]["torch_winograd"] == net["served"]
        assert len(net["served"]) - 1 <= len(net["layers"]["native_winograd"]) <= len(net["served"])
        assert net["commit"] == "first"
    assert document["nets"]["vgg_like"]["training"]["seed"] == 5
    assert {"torch", "threads", "host", "data_sha256", "gates"} <= set(document)
    assert json.loads(capsys.readouterr().out)["passed"] == document["passed"]


def test_an_interrupted_run_goes_on_where_it_stopped(
    place: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def measure_net(net: nn.Module, *rest: Any) -> Any:
        asked.append(type(net).__name__)
        if asked == ["ResNet20", "Sequential"]:
            raise KeyboardInterrupt
        return {"ways": judged()}

    monkeypatch.setattr(command, "measure_net", measure_net)
    assert command.main(place) == 130
    assert "holds 1 nets; run again to go on" in capsys.readouterr().err
    assert json.loads(Path(place[-1]).read_text(encoding="utf-8"))["passed"] is False
    assert command.main(place) == 0
    assert asked == ["ResNet20", "Sequential", "Sequential"]
    capsys.readouterr()
    assert command.main([*place, "--threads", "2"]) == 2
    assert "it was made at threads 1, now it is 2: --again makes it anew" in capsys.readouterr().err
    monkeypatch.setattr(command, "commit", lambda: "second-dirty")
    assert command.main([*place, "--again", "--nets", "vgg_like"]) == 0
    assert asked[3:] == ["Sequential"]
    assert "there are uncommitted changes" in capsys.readouterr().err
    nets = json.loads(Path(place[-1]).read_text(encoding="utf-8"))["nets"]
    assert {name: net["commit"] for name, net in nets.items()} == {"resnet20": "first", "vgg_like": "second-dirty"}
    assert command.main([*place, "--threads", "2", "--again", "--nets", "vgg_like"]) == 1
    whole = json.loads(Path(place[-1]).read_text(encoding="utf-8"))
    assert (whole["threads"], list(whole["nets"])) == (2, ["vgg_like"]), "what was made on one thread is forgotten"


def test_nets_are_measured_one_at_a_time(
    place: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def measure_net(net: nn.Module, *rest: Any) -> Any:
        asked.append(type(net).__name__)
        return {"ways": judged()}

    monkeypatch.setattr(command, "measure_net", measure_net)
    alone = [*place[:4], *place[6:], "--nets", "resnet20"]
    assert "--vgg" not in alone
    assert command.main(alone) == 1, "one net is not both"
    assert command.main([*place[:2], *place[4:], "--nets", "vgg_like"]) == 0
    assert asked == ["ResNet20", "Sequential"]
    capsys.readouterr()
    assert command.main(alone[:-2]) == 2
    assert "error: --vgg: it is missing: give it, or leave vgg_like out of --nets" in capsys.readouterr().err
    # Other weights are another net: what is known of the old one is dropped.
    save_file(ResNet20().state_dict(), place[3])
    assert command.main(place) == 0
    assert asked == ["ResNet20", "Sequential", "ResNet20"]


def test_bad_files_and_folders_are_refused(
    place: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "measure_net", lambda *_: pytest.fail("nothing may be measured"))

    def refused(option: str, value: Path, words: str) -> None:
        call = list(place)
        call[call.index(option) + 1] = str(value)
        assert command.main(call) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {option}: ")
        assert words in err

    vgg = tmp_path / "vgg"
    refused("--data", tmp_path / "none", "does not exist")
    refused("--data", vgg, "has neither")
    refused("--resnet20", tmp_path / "none", "No such file")
    refused("--resnet20", vgg / train.WEIGHTS, "holds other weights than those of resnet20")
    refused("--resnet20", vgg / train.RECORD, "is no safetensors file")
    refused("--vgg", tmp_path / "data", "No such file")
    (vgg / train.RECORD).write_text(json.dumps({"weights_sha256": "0"}), encoding="utf-8")
    refused("--vgg", vgg, "is the record of other weights than those in vgg_like.safetensors")
    (vgg / train.RECORD).unlink()
    refused("--vgg", vgg, "holds no vgg_like.json: train the net with python -m")
    assert command.main([*place, "--threads", "0"]) == 2
    assert "--threads: 0 is below 1" in capsys.readouterr().err
    assert not Path(place[-1]).exists()


def test_a_record_that_is_none_is_refused(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(place[-1])
    out.parent.mkdir()
    for text in ("{", "[]", "{}"):
        out.write_text(text, encoding="utf-8")
        assert command.main(place) == 2
        assert f"--out: {out} cannot be used" in capsys.readouterr().err


def test_the_committed_record_holds_the_gates_and_adds_up() -> None:
    document = json.loads(RECORD.read_text(encoding="utf-8"))
    assert document["passed"] is True
    for net, convolutions in (("resnet20", 19), ("vgg_like", 6)):
        found = document["nets"][net]
        assert found["pictures"] == 10_000
        assert found["convolutions"] == convolutions
        direct = found["ways"]["torch_direct"]
        for way in ("torch_winograd", "native_direct", "native_winograd"):
            judged_as = found["ways"][way]
            assert judged_as["same_labels"] == pytest.approx(100 - judged_as["other_labels"] / 100)
            assert judged_as["other_labels"] <= 10
            assert judged_as["accuracy_change"] == pytest.approx(judged_as["accuracy"] - direct["accuracy"])
            assert abs(judged_as["accuracy_change"]) <= 0.05 + 1e-9
            assert 0 < judged_as["error"] <= 1e-4
        assert found["ways"]["torch_winograd"]["error"] > direct["error"]
    # The published net's accuracy on these pictures (JPEG, ten points below the originals).
    assert document["nets"]["resnet20"]["ways"]["torch_direct"]["accuracy"] == pytest.approx(81.03, abs=0.02)
    vgg = document["nets"]["vgg_like"]
    assert vgg["training"]["weights_sha256"] == vgg["weights_sha256"]
    assert vgg["training"]["data_sha256"]["test"] == document["data_sha256"]
    assert len(vgg["training"]["curve"]) == vgg["training"]["epochs"]
    assert vgg["ways"]["torch_direct"]["accuracy"] == pytest.approx(vgg["training"]["accuracy"], abs=0.05)


@pytest.mark.slow
@pytest.mark.data
def test_the_published_net_keeps_its_labels(data_dir: Path) -> None:
    every = load_pictures(data_dir / "cifar10", "test")
    some = Pictures(inputs=every.inputs[::10], labels=every.labels[::10], sha256="")
    net, _ = command.load_net("resnet20", data_dir / "nets" / "cifar10_resnet20.safetensors")
    with torch.no_grad():
        theirs = load_pretrained("cifar10_resnet20", data_dir)(some.inputs)
    found = command.measure_net(net, some)
    assert found["ways"]["torch_direct"]["accuracy"] == pytest.approx(
        100 * float((theirs.argmax(1) == some.labels).float().mean()), abs=0.11
    )
    assert command.holds(found["ways"])
