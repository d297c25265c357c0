"""Training by FFT beside nn.Conv2d: the loop against one by hand in float64, gates, resuming, refusals, the record."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn import functional as F

from fastcnn.methods.transforms.fft_conv import FFTConv2d
from fastcnn.reproduction import fft_training as command
from tests.compression.test_reproduction import fake_mnist

ROOT = Path(__file__).parents[3]
RECORD, PAGE = ROOT / "benchmarks" / "results" / "fft_training.json", ROOT / "docs" / "methods" / "fft.md"


@pytest.fixture
def pictures() -> tuple[Any, Any]:
    """Sixty pictures of noise with a bright row that tells the label, in float64."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10
    images = rng.standard_normal((60, 1, 28, 28))
    images[np.arange(60), 0, 2 * labels + 4] += 2
    return torch.from_numpy(images), torch.from_numpy(labels)


@pytest.fixture
def float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def test_the_net_is_that_of_the_specification() -> None:
    net = command.lenet_5x5()
    assert sum(p.numel() for p in net.parameters()) == 25 * 32 + 32 + 25 * 32 * 64 + 64 + 3136 * 512 + 512 + 5130
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_by_fft_every_convolution_changes_and_no_parameter() -> None:
    net = command.lenet_5x5()
    fast = command.by_fft(net)
    kinds = [type(layer) for layer in fast.modules() if isinstance(layer, nn.Conv2d)]
    assert kinds == [FFTConv2d, FFTConv2d]
    assert not any(isinstance(layer, FFTConv2d) for layer in net.modules())
    for (name, mine), (other, theirs) in zip(net.named_parameters(), fast.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(mine, theirs)
        assert mine is not theirs


def test_a_layer_that_would_be_convolved_directly_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 5), nn.Conv2d(2, 2, 3, stride=2, dilation=2))
    with pytest.raises(RuntimeError, match="layer 1 is not convolved by FFT: forced, but convolves directly"):
        command.by_fft(net)


@pytest.mark.parametrize("way", ["conv2d", "fft"])
def test_the_loop_is_plain_momentum_in_the_seeds_order(
    way: Any, pictures: Any, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand in float64: cross entropy by its formula, velocity and step written out, batches drawn here."""
    monkeypatch.setattr(command, "BATCH", 16)
    monkeypatch.setattr(command, "WARM_STEPS", 2)
    monkeypatch.setattr(command, "RATE", 0.05)
    steps = []
    run = command.train_once(way, 5, pictures, pictures, lambda: steps.append(0))
    inputs, labels = pictures
    torch.manual_seed(5)
    net = command.lenet_5x5()
    torch.manual_seed(5)
    order = torch.randperm(60)
    velocity = [torch.zeros_like(p) for p in net.parameters()]
    losses = []
    for number, rate in enumerate([0.05 / 2, 0.05, 0.05 * 2 / 3, 0.05 / 3]):
        pick = order[16 * number : 16 * number + 16]
        scores = net(inputs[pick])
        loss = (torch.logsumexp(scores, 1) - scores[torch.arange(len(pick)), labels[pick]]).mean()
        losses.append(float(loss.detach()))
        with torch.no_grad():
            for p, v, g in zip(net.parameters(), velocity, torch.autograd.grad(loss, net.parameters()), strict=True):
                v.mul_(0.9).add_(g)
                p.sub_(rate * v)
    # Nine digits are kept of each.
    assert run["losses"] == pytest.approx(losses, rel=2e-9)
    assert len(steps) == len(losses) == 4
    assert len(set(run["losses"])) == 4
    with torch.no_grad():
        hits = (net(inputs).argmax(1) == labels).double().mean()
    assert run["accuracy"] == pytest.approx(100 * float(hits))
    assert (run["way"], run["seed"], run["threads"]) == (way, 5, 1)


def test_threads_are_those_of_the_way_and_given_back(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = F.cross_entropy

    def spy(*args: Any) -> Any:
        seen.append(torch.get_num_threads())
        return real(*args)

    monkeypatch.setattr(command.F, "cross_entropy", spy)
    data = (pictures[0].float(), pictures[1])
    before = torch.get_num_threads()
    assert command.train_once("conv2d, 2 threads", 0, data, data)["threads"] == 2
    assert command.train_once("conv2d", 0, data, data)["threads"] == 1
    assert seen == [2, 1]
    assert torch.get_num_threads() == before


def test_a_loss_that_is_not_finite_is_an_error(pictures: Any) -> None:
    inputs = pictures[0].float()
    inputs[7] = float("nan")
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match=r"fft, seed 3: the loss became nan in step 0"):
        command.train_once("fft", 3, (inputs, pictures[1]), (inputs, pictures[1]))
    assert torch.get_num_threads() == before


def test_the_rate_rises_in_a_line_and_falls_in_one() -> None:
    top, warm = command.RATE, command.WARM_STEPS
    rates = [command.learning_rate(n, 3 * warm) for n in range(3 * warm)]
    assert rates[0] == pytest.approx(top / warm)
    assert rates[warm - 1] == max(rates) == pytest.approx(top)
    assert np.diff(rates[:warm]) == pytest.approx(top / warm)
    assert np.diff(rates[warm - 1 :]) == pytest.approx(-rates[-1])
    assert rates[-1] == pytest.approx(top / (2 * warm + 1))
    short = [command.learning_rate(n, 5) for n in range(5)]
    assert short == pytest.approx(rates[:5]), "fewer steps than that are its beginning"


def test_the_loss_difference_is_relative_to_the_first_and_of_the_first_steps() -> None:
    losses = [2.0, 1.0] + [0.5] * 98 + [0.5]
    others = [2.0, 1.002] + [0.5] * 98 + [0.9]
    assert len(losses) == command.FIRST_STEPS + 1
    assert command.loss_difference(losses, others) == pytest.approx(0.002)
    assert command.loss_difference(others, losses) == pytest.approx(0.002 / 1.002)
    others[1], others[99] = 1.0, 0.49
    assert command.loss_difference(losses, others) == pytest.approx(0.02)
    with pytest.raises(ValueError, match="shorter"):
        command.loss_difference(losses, others[:-1])


def made_up() -> command.Runs:
    """Three seeds: threads differ by at most 0.3 points, FFT's mean by 0.2 from nn.Conv2d's."""
    accuracies = {
        "conv2d": (85.0, 86.0, 84.0),
        "fft": (85.5, 86.5, 83.6),
        "conv2d, 2 threads": (85.1, 85.7, 84.2),
    }
    runs: command.Runs = {}
    for way, values in accuracies.items():
        for seed, value in enumerate(values):
            losses = [1.0 + 0.01 * seed] * 120
            runs[seed, way] = {"way": way, "seed": seed, "accuracy": value, "losses": losses, "seconds": 1.0}
    return runs


def test_the_gates_hold_at_their_limits_and_not_beyond() -> None:
    made = {"commit": "1"}

    def passes(change: Any) -> Any:
        runs = copy.deepcopy(made_up())
        change(runs)
        return command.summary(runs, [0, 1, 2], made)["passed"]

    def loss(step: int, factor: float, way: str = "fft") -> Any:
        def change(runs: command.Runs) -> None:
            runs[2, way]["losses"][step] *= factor

        return change

    def accuracy(seed: int, way: str, value: float) -> Any:
        return lambda runs: runs[seed, way].update(accuracy=value)

    whole = command.summary(made_up(), [0, 1, 2], made)
    assert whole["found"]["spread"] == pytest.approx(0.3)
    assert whole["found"]["accuracy_difference"] == pytest.approx(0.2)
    assert whole["found"]["loss_difference"] == {"fft": 0.0, "conv2d, 2 threads": 0.0}
    assert whole["commit"] == "1"
    assert [(run["seed"], run["way"]) for run in whole["runs"]] == [(s, w) for s in range(3) for w in command.WAYS]
    assert passes(lambda runs: None)
    assert passes(loss(99, 1.00099))
    assert not passes(loss(99, 1.00101))
    assert not passes(loss(0, 0.9989))
    assert passes(loss(100, 2.0)), "later steps are free"
    assert passes(loss(50, 2.0, "conv2d, 2 threads")), "threads are shown, not judged"
    assert passes(accuracy(2, "fft", 83.9)), "0.3 points of the mean, the spread"
    assert not passes(accuracy(2, "fft", 83.95))
    assert not passes(accuracy(0, "fft", 82.9)), "worse counts as better does"

    def no_spread(runs: command.Runs) -> None:
        for seed in range(3):
            runs[seed, "conv2d, 2 threads"]["accuracy"] = runs[seed, "conv2d"]["accuracy"]

    assert not passes(no_spread)
    assert not passes(lambda runs: [run.update(accuracy=run["accuracy"] - 10) for run in runs.values()])
    assert not passes(lambda runs: runs.pop((1, "conv2d, 2 threads")))


def test_a_small_run_writes_a_full_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_mnist(tmp_path)
    monkeypatch.setattr(command, "BATCH", 100)
    monkeypatch.setattr(command, "MIN_ACCURACY", 0.0)
    monkeypatch.setattr(command, "RATE", 0.05)
    monkeypatch.setattr(command, "WARM_STEPS", 1)
    out = tmp_path / "results" / "record.json"
    code = command.main(["--data", str(tmp_path), "--out", str(out), "--seeds", "4"])
    document = json.loads(out.read_text(encoding="utf-8"))
    assert code == (0 if document["passed"] else 1)
    assert [(run["seed"], run["way"], run["threads"]) for run in document["runs"]] == [
        (4, "conv2d", 1), (4, "fft", 1), (4, "conv2d, 2 threads", 2),
    ]  # fmt: skip
    conv, fft, threads = (run["losses"] for run in document["runs"])
    assert len(conv) == len(fft) == len(threads) == 6
    assert fft == pytest.approx(conv, rel=1e-4)
    assert fft != conv, "another algorithm rounds in another way"
    assert document["found"]["loss_difference"]["fft"] == command.loss_difference(conv, fft) <= 1e-4
    assert {"commit", "date", "torch", "host", "data_sha256", "settings", "gates"} <= set(document)
    assert json.loads(capsys.readouterr().out)["found"] == document["found"]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces the trainings by made-up ones, and counts them."""
    fake_mnist(tmp_path)
    asked: list[Any] = []

    def train_once(way: str, seed: int, *rest: Any) -> Any:
        if "stop" in asked and len(asked) > 4:
            raise KeyboardInterrupt
        asked.append((seed, way))
        return made_up()[seed, way]

    monkeypatch.setattr(command, "train_once", train_once)
    monkeypatch.setattr(command, "commit", lambda: "first")
    return asked


def test_an_interrupted_run_goes_on_where_it_stopped(
    fake: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "record.json"
    call = ["--data", str(tmp_path), "--out", str(out)]
    fake.append("stop")
    assert command.main(call) == 130
    assert "holds 4 trainings; run again to go on" in capsys.readouterr().err
    assert json.loads(out.read_text(encoding="utf-8"))["passed"] is False
    fake.clear()
    assert command.main(call) == 0
    assert fake == [(seed, way) for seed in range(3) for way in command.WAYS][4:]
    whole = json.loads(out.read_text(encoding="utf-8"))
    assert (whole["commit"], whole["passed"], len(whole["runs"])) == ("first", True, 9)
    monkeypatch.setattr(command, "commit", lambda: "second-dirty")
    capsys.readouterr()
    assert command.main(call) == 2
    assert "it was made at commit first, now it is second-dirty: --again makes it anew" in capsys.readouterr().err
    assert command.main([*call, "--again"]) == 0
    assert "there are uncommitted changes" in capsys.readouterr().err


def test_bad_folders_files_and_seeds_are_refused(
    fake: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, empty = tmp_path / "record.json", tmp_path / "empty"
    empty.mkdir()
    for folder, words in ((empty, "has neither train-images-idx3-ubyte.gz"), (tmp_path / "none", "does not exist")):
        assert command.main(["--data", str(folder), "--out", str(out)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: --data: ")
        assert words in err
    for seeds in (["-1"], ["0", "1", "0"]):
        assert command.main(["--data", str(tmp_path), "--out", str(out), "--seeds", *seeds]) == 2
        assert f"--seeds: {' '.join(seeds)} must be different numbers from 0 up" in capsys.readouterr().err
    assert not out.exists()
    for text in ("{", "[]", "{}"):
        out.write_text(text, encoding="utf-8")
        assert command.main(["--data", str(tmp_path), "--out", str(out)]) == 2
        assert f"--out: {out} cannot be used" in capsys.readouterr().err
    assert fake == []


def test_the_committed_record_holds_the_gates_and_adds_up() -> None:
    document = json.loads(RECORD.read_text(encoding="utf-8"))
    assert document["passed"] is True
    runs = {(run["seed"], run["way"]): run for run in document["runs"]}
    assert set(runs) == {(seed, way) for seed in (0, 1, 2) for way in command.WAYS}
    means = {way: np.mean([runs[seed, way]["accuracy"] for seed in range(3)]) for way in command.WAYS}
    spread = max(
        abs(runs[seed, "conv2d"]["accuracy"] - runs[seed, "conv2d, 2 threads"]["accuracy"]) for seed in range(3)
    )
    assert document["found"]["spread"] == pytest.approx(spread)
    assert document["found"]["accuracy_difference"] == pytest.approx(means["fft"] - means["conv2d"])
    assert abs(means["fft"] - means["conv2d"]) <= spread
    for seed in range(3):
        conv, fft = (np.array(runs[seed, way]["losses"]) for way in ("conv2d", "fft"))
        assert len(conv) == len(fft) == 469
        assert (np.abs(fft - conv) / conv)[:100].max() <= 1e-3
        assert conv[-50:].mean() < 0.3 * conv[0]
        assert min(runs[seed, way]["accuracy"] for way in command.WAYS) >= 75


def test_the_page_shows_the_record() -> None:
    found = json.loads(RECORD.read_text(encoding="utf-8"))["found"]
    text = PAGE.read_text(encoding="utf-8").partition("### Training")[2]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    names = {
        "conv2d": "`nn.Conv2d`, 1 thread",
        "fft": "`FFTConv2d`, 1 thread",
        "conv2d, 2 threads": "`nn.Conv2d`, 2 threads",
    }
    apart = {way: f"{found['loss_difference'][way]:.1e}" for way in command.WAYS[1:]}
    assert rows == [[names[way], apart.get(way, ""), f"{found['accuracy'][way]:.2f} %"] for way in command.WAYS]
    words = " ".join(text.split())
    assert f"`FFTConv2d` is {abs(found['accuracy_difference']):.2f} points from `nn.Conv2d`" in words
    assert f"differs by up to {found['spread']:.2f} between one thread and two" in words


@pytest.mark.slow
@pytest.mark.data
def test_the_first_steps_on_real_digits(data_dir: Path) -> None:
    """MNIST has the format of Fashion-MNIST."""
    inputs, labels = command.tensors(data_dir / "mnist", "train")
    some = inputs[: command.FIRST_STEPS * command.BATCH], labels[: command.FIRST_STEPS * command.BATCH]
    few = inputs[-1000:], labels[-1000:]
    conv, fft = (command.train_once(way, 0, some, few) for way in ("conv2d", "fft"))
    assert len(conv["losses"]) == command.FIRST_STEPS
    assert command.loss_difference(conv["losses"], fft["losses"]) <= command.MAX_LOSS_DIFFERENCE
