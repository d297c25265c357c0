"""The loop: learns, resumes bitwise, keeps a valid checkpoint on Ctrl-C, refuses what cannot work."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fastcnn as fc
from fastcnn.compression import checkpoint
from fastcnn.compression.finetune import History
from tests.compression.nets import accuracy, batches, quadrants, small_cnn


class Stop(Exception):
    """Raised by a test in the middle of a run."""


class StopAfter:
    """Batches that break off after some number, once."""

    def __init__(self, inner: Any, steps: int) -> None:
        self.inner, self.left = inner, steps

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.inner:
            if self.left == 0:
                self.left = -1
                raise Stop
            self.left -= 1
            yield batch


def pruning() -> nn.Module:
    config = fc.MagnitudeConfig(sparsity=0.8, skip=(), schedule="cubic", end=14, every=3)
    return fc.prepare(small_cnn(), config)


def sharing() -> nn.Module:
    return fc.convert(small_cnn(), fc.KMeansConfig(clusters=6))


MAKERS = {"pruning": pruning, "sharing": sharing, "dense": small_cnn}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("steps", [3, 8, 13])
def test_interrupted_and_resumed_equals_uninterrupted_bitwise(
    tmp_path: Path, name: str, optimizer: Any, steps: int
) -> None:
    settings: dict[str, Any] = {
        "epochs": 3,
        "optimizer": optimizer,
        "lr": 0.01,
        "schedule": "cosine",
        "evaluate": accuracy,
        "seed": 5,
    }
    whole = MAKERS[name]()
    want = fc.finetune(whole, batches(), **settings)

    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 2, **settings}
    with pytest.raises(Stop):
        fc.finetune(MAKERS[name](), StopAfter(batches(), steps), **kept)
    torch.manual_seed(999)
    again = MAKERS[name]()
    got = fc.finetune(again, batches(), **kept)
    assert got.resumed_from == max(steps // 2 * 2, steps // 8 * 8)
    assert [(e.loss, e.metric) for e in got.epochs] == [(e.loss, e.metric) for e in want.epochs]
    left, right = whole.state_dict(), again.state_dict()
    for key, value in left.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, right[key]), key
        else:
            assert value == right[key], key


def test_resume_is_bitwise_with_a_dataloader_too(tmp_path: Path) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(
            TensorDataset(*quadrants()), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(1)
        )

    def stop(model: nn.Module) -> float:
        raise Stop

    whole = small_cnn()
    want = fc.finetune(whole, loader(), epochs=2, checkpoint_dir=tmp_path / "a", checkpoint_every=5)
    with pytest.raises(Stop):
        fc.finetune(small_cnn(), loader(), epochs=2, evaluate=stop, checkpoint_dir=tmp_path / "b", checkpoint_every=5)
    again = small_cnn()
    got = fc.finetune(again, loader(), epochs=2, checkpoint_dir=tmp_path / "b", checkpoint_every=5)
    assert got.resumed_from == 5
    assert [e.loss for e in got.epochs] == [e.loss for e in want.epochs]
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_seeds_decide_the_order() -> None:
    runs = []
    for seed in (1, 1, 2):
        model = small_cnn()
        fc.finetune(model, batches(), epochs=1, seed=seed)
        runs.append(model.state_dict()["last.weight"])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_ctrl_c_finishes_the_step_writes_a_checkpoint_and_raises(tmp_path: Path) -> None:
    class Interrupt:
        def __len__(self) -> int:
            return 8

        def __iter__(self) -> Iterator[Any]:
            for number, batch in enumerate(batches()):
                if number == 3:
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fc.finetune(pruning(), Interrupt(), epochs=2, checkpoint_dir=tmp_path, lr=0.01)
    assert signal.getsignal(signal.SIGINT) is before
    whole, again = pruning(), pruning()
    fc.finetune(whole, batches(), epochs=2, lr=0.01)
    history = fc.finetune(again, batches(), epochs=2, lr=0.01, checkpoint_dir=tmp_path)
    assert history.resumed_from == 4
    assert torch.equal(fc.convert(whole).state_dict()["last.weight"], fc.convert(again).state_dict()["last.weight"])


def test_ctrl_c_during_the_last_evaluation_is_not_swallowed(tmp_path: Path) -> None:
    def evaluate(model: nn.Module) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        fc.finetune(small_cnn(), batches(), epochs=1, evaluate=evaluate, checkpoint_dir=tmp_path)
    assert fc.finetune(small_cnn(), batches(), epochs=1, checkpoint_dir=tmp_path).resumed_from == 8


def test_a_failing_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fc.finetune(small_cnn(), batches(), epochs=1, checkpoint_dir=tmp_path)
    old = (tmp_path / checkpoint.NAME).read_bytes()

    def half(state: object, file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        fc.finetune(small_cnn(), batches(), epochs=1, checkpoint_dir=tmp_path, resume=False)
    assert (tmp_path / checkpoint.NAME).read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.NAME]


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first = small_cnn()
    want = fc.finetune(first, batches(), epochs=2, checkpoint_dir=tmp_path)
    second = small_cnn(seed=8)
    got = fc.finetune(second, StopAfter(batches(), 0), epochs=2, checkpoint_dir=tmp_path)
    assert (got.steps, got.resumed_from) == (want.steps, want.steps)
    assert torch.equal(first.state_dict()["conv.weight"], second.state_dict()["conv.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"epochs": 3}, "epochs was 1 and is now 3"),
        ({"lr": 0.5}, "lr was"),
        ({"optimizer": "sgd"}, "optimizer was 'Adam' and is now 'SGD'"),
        ({"precision": "bf16"}, "precision was 'float32' and is now 'bf16'"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    fc.finetune(small_cnn(), batches(), epochs=1, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=message):
        fc.finetune(small_cnn(), batches(), **{"epochs": 1, **change}, checkpoint_dir=tmp_path)


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    for sparsity in (0.5, 0.5, 0.6):
        trainee = fc.prepare(small_cnn(), fc.MagnitudeConfig(sparsity=sparsity))
        if sparsity == 0.6:
            with pytest.raises(ValueError, match=r"method was .*0\.5.* and is now .*0\.6"):
                fc.finetune(trainee, batches(), checkpoint_dir=tmp_path)
        else:
            fc.finetune(trainee, batches(), checkpoint_dir=tmp_path)


def test_a_damaged_checkpoint_is_refused_and_can_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / checkpoint.NAME).write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ValueError, match=r"no readable checkpoint.*resume=False"):
        fc.finetune(small_cnn(), batches(), epochs=1, checkpoint_dir=tmp_path)
    assert fc.finetune(small_cnn(), batches(), epochs=1, checkpoint_dir=tmp_path, resume=False).steps == 8


def test_it_learns_and_calls_evaluate_in_eval_mode() -> None:
    modes = []

    def evaluate(model: nn.Module) -> float:
        modes.append((model.training, torch.is_grad_enabled()))
        return accuracy(model)

    model = small_cnn()
    history = fc.finetune(model, batches(), epochs=6, lr=0.01, evaluate=evaluate)
    assert modes == [(False, False)] * 6
    assert history.metric is not None
    assert history.metric > 90
    assert history.epochs[-1].loss < history.epochs[0].loss / 2


def test_schedules_set_the_rate_of_every_step() -> None:
    for schedule, want in {"constant": [0.1] * 4, "linear": [0.1, 0.075, 0.05, 0.025]}.items():
        seen: list[float] = []

        class Spy(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:  # type: ignore[override]
                seen.append(self.param_groups[0]["lr"])  # noqa: B023  # read within this turn
                super().step(closure)

        fc.finetune(small_cnn(), batches(64), epochs=2, optimizer=Spy, lr=0.1, schedule=schedule)  # type: ignore[arg-type]
        assert seen == pytest.approx(want)


def test_teacher_pulls_the_student_towards_it() -> None:
    teacher = small_cnn(seed=1)
    fc.finetune(teacher, batches(), epochs=8, lr=0.01)
    teacher.train()

    def wrong(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, (target + 1) % 4)

    student = small_cnn(seed=2)
    fc.finetune(student, batches(), epochs=8, lr=0.01, loss=wrong, teacher=teacher, distill_weight=1.0)
    assert accuracy(student.eval()) > 85
    misled = small_cnn(seed=2)
    fc.finetune(misled, batches(), epochs=8, lr=0.01, loss=wrong, teacher=teacher, distill_weight=0.0)
    assert accuracy(misled.eval()) < 15


def test_progress_goes_to_stderr_only_when_asked_or_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    fc.finetune(small_cnn(), batches(), epochs=1)
    assert capsys.readouterr() == ("", "")
    assert not sys.stderr.isatty()
    fc.finetune(small_cnn(), batches(), epochs=1, progress=True, description="tuning here")
    out, err = capsys.readouterr()
    assert out == ""
    assert "tuning here" in err


def test_an_optimizer_of_ones_own() -> None:
    model = small_cnn()
    for parameter in model.conv.parameters():
        parameter.requires_grad_(False)
    frozen = model.conv.weight.detach().clone()  # type: ignore[operator,union-attr]
    mine = torch.optim.SGD(model.last.parameters(), lr=0.1)
    history = fc.finetune(model, batches(), optimizer=mine)
    assert isinstance(history, History)
    assert torch.equal(model.conv.weight, frozen)  # type: ignore[arg-type]


def test_in_bf16_products_are_rounded_and_loss_and_evaluation_are_not() -> None:
    seen: dict[str, set[torch.dtype]] = {"training": set(), "evaluation": set(), "loss": set()}
    model = small_cnn()
    model.conv.register_forward_hook(
        lambda layer, _, y: seen["training" if layer.training else "evaluation"].add(y.dtype)
    )

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        seen["loss"].add(output.dtype)
        return nn.functional.cross_entropy(output, labels)

    history = fc.finetune(model, batches(), epochs=6, lr=0.01, precision="bf16", loss=loss, evaluate=accuracy)
    assert seen == {"training": {torch.bfloat16}, "evaluation": {torch.float32}, "loss": {torch.float32}}
    assert model.conv.weight.dtype == torch.float32
    assert history.epochs[-1].loss < 0.5 * history.epochs[0].loss


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epochs": -1}, ValueError, "epochs=-1"),
        ({"lr": -1.0}, ValueError, r"lr=-1\.0"),
        ({"optimizer": "adagrad"}, ValueError, "optimizer='adagrad' is not supported: choose from 'adam'"),
        ({"schedule": "step"}, ValueError, "schedule='step'"),
        ({"precision": "fp16"}, ValueError, "precision='fp16'"),
        ({"checkpoint_every": 3}, ValueError, "checkpoint_every needs checkpoint_dir"),
        ({"distill_weight": 2}, ValueError, "distill_weight=2"),
        ({"temperature": 0}, ValueError, "temperature=0"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"lr": 1e20, "optimizer": "sgd", "epochs": 3}, ValueError, "the loss became"),
    ],
)
def test_bad_arguments_are_named(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fc.finetune(small_cnn(), batches(), **settings)


def test_bad_loaders_and_models_are_named() -> None:
    with pytest.raises(TypeError, match="must be re-iterable"):
        fc.finetune(small_cnn(), iter([1]))
    with pytest.raises(ValueError, match="loader is empty"):
        fc.finetune(small_cnn(), [])
    with pytest.raises(TypeError, match="loader must have a length"):
        fc.finetune(small_cnn(), type("Endless", (), {"__iter__": lambda self: iter([])})())
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        fc.finetune(nn.ReLU(), batches())
    with pytest.raises(TypeError, match="trainee must be"):
        fc.finetune("net", batches())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none of the trainee's parameters"):
        fc.finetune(small_cnn(), batches(), optimizer=torch.optim.SGD(small_cnn().parameters(), lr=0.1))
    with pytest.raises(ValueError, match="one equal length above 0, got 3, 4"):
        type(batches())(torch.zeros(3), torch.zeros(4), batch_size=2)
