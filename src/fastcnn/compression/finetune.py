"""The ready training loop: accelerate underneath, progress on stderr, exact resume, clean Ctrl-C."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcnn._extras import require
from fastcnn.compression.checkpoint import (
    load_checkpoint,
    random_state,
    save_checkpoint,
    seed_all,
    set_random_state,
)
from fastcnn.compression.convert import Trainee
from fastcnn.methods.contract import check_choice, check_count, check_range

Loss = Callable[[Any, Any], Tensor]
OptimizerLike = Literal["adam", "adamw", "sgd"] | torch.optim.Optimizer | Callable[..., torch.optim.Optimizer]
SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch: mean training loss, what ``evaluate`` returned (or None), seconds."""

    epoch: int
    loss: float
    metric: float | None
    seconds: float


@dataclass
class History:
    """What a training run did, epoch by epoch; ``steps`` counts optimizer steps."""

    epochs: list[Epoch] = field(default_factory=list)
    steps: int = 0
    resumed_from: int = 0

    @property
    def metric(self) -> float | None:
        """Last metric, or None without ``evaluate``."""
        return self.epochs[-1].metric if self.epochs else None


def finetune(
    trainee: nn.Module,
    loader: Iterable[Any],
    *,
    epochs: int = 1,
    optimizer: OptimizerLike = "adam",
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    schedule: Literal["constant", "linear", "cosine"] = "constant",
    loss: Loss | None = None,
    teacher: nn.Module | None = None,
    distill_weight: float = 0.5,
    temperature: float = 2.0,
    precision: Literal["float32", "bf16"] = "float32",
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = True,
    progress: bool | None = None,
    description: str = "fine-tuning",
    seed: int = 0,
) -> History:
    """Train a model in place: a prepared one (its session steps along) or any other.

    Runs under ``accelerate``, so ``accelerate launch`` spreads it over devices. The model trains on
    accelerate's device and returns to its own.

    Parameters
    ----------
    trainee : nn.Module
        From ``prepare``, from ``convert`` (its codebooks and factors are ordinary parameters), or plain.
    loader : iterable of (input, target)
        A DataLoader, or any re-iterable. Its order must depend on torch's, Python's or numpy's seed or its own
        ``generator`` only: each epoch reseeds them, which is what makes resuming exact.
    epochs : int
    optimizer : {"adam", "adamw", "sgd"}, Optimizer or callable
        A word (sgd: momentum 0.9), an optimizer over the trainee's parameters (then lr and weight_decay are its
        own), or ``f(params, lr=..., weight_decay=...)``.
    lr, weight_decay : float
    schedule : {"constant", "linear", "cosine"}
        Of the learning rate, over all steps, to zero.
    loss : callable, optional
        ``loss(output, target)``; default cross entropy.
    teacher : nn.Module, optional
        Adds ``distill_weight * T^2 * KL(softmax(teacher / T), softmax(output / T))`` to
        ``(1 - distill_weight) * loss``.
    distill_weight, temperature : float
    precision : {"float32", "bf16"}
        Of products: with bf16 the model (and the teacher) runs under ``torch.autocast``, parameters and loss stay
        float32. Twice as fast or more where a machine has bf16, on a GPU or on a CPU with AVX512-BF16 or AMX.
    evaluate : callable, optional
        ``evaluate(model) -> float`` after each epoch, in eval mode and in float32.
    checkpoint_dir : path, optional
        Where to write ``checkpoint.pt``: after each epoch, every ``checkpoint_every`` steps, and on Ctrl-C.
    checkpoint_every : int, optional
        Steps.
    resume : bool
        Go on from the checkpoint in ``checkpoint_dir``, if there is one: on one CPU thread count the result is
        bitwise that of an uninterrupted run.
    progress : bool, optional
        Progress bar on stderr; default only if that is a terminal.
    description : str
        Words before the bar.
    seed : int

    Returns
    -------
    History

    Raises
    ------
    ValueError
        For a value out of range, an empty loader, a checkpoint of another run, or a loss that became NaN or Inf.
    TypeError
        For a wrong kind of argument.
    KeyboardInterrupt
        On Ctrl-C, after the step in progress and its checkpoint are complete (at once without checkpoint_dir,
        or on the second Ctrl-C).
    """
    run = _Run(
        trainee=trainee,
        loader=loader,
        epochs=epochs,
        schedule=schedule,
        loss=loss,
        teacher=teacher,
        distill_weight=distill_weight,
        temperature=temperature,
        precision=precision,
        evaluate=evaluate,
        folder=None if checkpoint_dir is None else Path(checkpoint_dir),
        every=checkpoint_every,
        seed=seed,
    )
    run.check()
    run.setup(_make_optimizer(trainee, optimizer, lr, weight_decay))
    if resume:
        run.restore()
    show = sys.stderr.isatty() if progress is None else progress
    with _bar(description, run.total_steps, show) as tick, run.interruptible() as interrupted:
        run.train(tick, interrupted)
    run.release()
    return run.history


def _make_optimizer(
    model: nn.Module, optimizer: OptimizerLike, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("trainee has no parameter that requires a gradient: nothing to train")
    if isinstance(optimizer, torch.optim.Optimizer):
        mine = {id(p) for p in parameters}
        if not any(id(p) in mine for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("optimizer holds none of the trainee's parameters: build it from trainee.parameters()")
        return optimizer
    check_range("lr", lr, 0.0, math.inf)
    check_range("weight_decay", weight_decay, 0.0, math.inf)
    if callable(optimizer):
        return optimizer(parameters, lr=lr, weight_decay=weight_decay)
    check_choice("optimizer", optimizer, ("adam", "adamw", "sgd"))
    if optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=0.9)
    return (torch.optim.Adam if optimizer == "adam" else torch.optim.AdamW)(
        parameters, lr=lr, weight_decay=weight_decay
    )


@dataclass
class _Run:
    """One call of finetune: its settings, then its state."""

    trainee: nn.Module
    loader: Iterable[Any]
    epochs: int
    schedule: str
    loss: Loss | None
    teacher: nn.Module | None
    distill_weight: float
    temperature: float
    precision: str
    evaluate: Callable[[nn.Module], float] | None
    folder: Path | None
    every: int | None
    seed: int
    history: History = field(default_factory=History)
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    pending: dict[str, Any] | None = None

    def check(self) -> None:
        if not isinstance(self.trainee, nn.Module):
            raise TypeError(f"trainee must be a torch.nn.Module, got {type(self.trainee).__name__}")
        if not hasattr(self.loader, "__iter__") or isinstance(self.loader, Iterator):
            raise TypeError("loader must be re-iterable (a DataLoader or a list of batches), not a one-way iterator")
        if not hasattr(self.loader, "__len__"):
            raise TypeError("loader must have a length: the schedules and the progress bar need the number of batches")
        loader: Any = self.loader
        if len(loader) == 0:
            raise ValueError("loader is empty: it must give at least one batch")
        check_count("epochs", self.epochs, 0)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("precision", self.precision, PRECISIONS)
        check_range("distill_weight", self.distill_weight, 0.0, 1.0)
        check_range("temperature", self.temperature, 1e-3, math.inf)
        check_count("seed", self.seed, 0)
        if self.every is not None:
            check_count("checkpoint_every", self.every, 1)
            if self.folder is None:
                raise ValueError("checkpoint_every needs checkpoint_dir: where should checkpoints go?")

    def setup(self, optimizer: torch.optim.Optimizer) -> None:
        accelerate = require("accelerate", extra="compress", purpose="fastcnn.finetune")
        self.accelerator = accelerate.Accelerator()
        parameter = next(self.trainee.parameters())
        self.home = parameter.device
        self.model, self.optimizer, self.batches = self.accelerator.prepare(self.trainee, optimizer, self.loader)
        if self.teacher is not None:
            self.teacher_home = next(self.teacher.parameters()).device
            self.teacher.to(self.accelerator.device).eval()
        self.per_epoch = len(self.batches)
        self.total_steps = self.epochs * self.per_epoch
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be this run's."""
        return {
            "seed": self.seed,
            "epochs": self.epochs,
            "batches": self.per_epoch,
            "schedule": self.schedule,
            "optimizer": type(self.optimizer.optimizer).__name__,
            "lr": self.rates,
            "precision": self.precision,
            "method": self.trainee.config.to_json() if isinstance(self.trainee, Trainee) else None,
            "parameters": [[name, list(p.shape)] for name, p in self.trainee.named_parameters()],
        }

    def restore(self) -> None:
        if self.folder is None:
            return
        state = load_checkpoint(self.folder, self.fingerprint)
        if state is None:
            return
        self.trainee.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch, self.loss_sum = state["epoch"], state["batch"], state["loss_sum"]
        self.history.epochs = [Epoch(**entry) for entry in state["history"]]
        self.history.steps = self.history.resumed_from = self.epoch * self.per_epoch + self.batch
        # At the start of an epoch the generators are seeded anyway.
        self.pending = state["random"] if self.batch > 0 else None

    def save(self) -> None:
        if self.folder is None or not self.accelerator.is_main_process:
            return
        save_checkpoint(
            self.folder,
            {
                "fingerprint": self.fingerprint,
                "model": self.trainee.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
                "batch": self.batch,
                "loss_sum": self.loss_sum,
                "history": [asdict(entry) for entry in self.history.epochs],
                "random": random_state(),
            },
        )

    def train(self, tick: Callable[[int, str], None], interrupted: Callable[[], bool]) -> None:
        tick(self.history.steps, "")
        while self.epoch < self.epochs:
            began = time.perf_counter()
            self.model.train()
            for number, (inputs, targets) in enumerate(self._epoch_batches()):
                if number < self.batch:
                    continue
                if self.pending is not None:
                    # Batches before this one were drawn again; the generators now stand where the checkpoint left them.
                    set_random_state(self.pending)
                    self.pending = None
                self._step(inputs, targets)
                self.batch += 1
                tick(self.history.steps, f"loss {self.loss_sum / self.batch:.4f}")
                stop = interrupted()
                if stop or (self.every is not None and self.history.steps % self.every == 0):
                    self.save()
                if stop:
                    raise KeyboardInterrupt
            self._end_epoch(began)
            if interrupted():
                raise KeyboardInterrupt

    def _epoch_batches(self) -> Iterator[Any]:
        """Batches of the present epoch, in an order that depends on seed and epoch alone."""
        seed_all(self.seed * 1_000_003 + self.epoch)
        generator = getattr(self.loader, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(self.seed * 1_000_003 + self.epoch)
        if isinstance(self.loader, torch.utils.data.DataLoader):
            yield from self.batches
            return
        for batch in self.loader:
            yield [part.to(self.accelerator.device) if isinstance(part, Tensor) else part for part in batch]

    def _step(self, inputs: Any, targets: Any) -> None:
        done = self.history.steps / self.total_steps
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = (
                rate
                * {"constant": 1.0, "linear": 1.0 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.schedule]
            )
        self.optimizer.zero_grad()
        value = self._loss(inputs, targets)
        if not math.isfinite(number := float(value.detach())):
            raise ValueError(
                f"the loss became {number} in epoch {self.epoch}, batch {self.batch}: lower lr or check the data"
            )
        self.accelerator.backward(value)
        self.optimizer.step()
        if isinstance(self.trainee, Trainee):
            self.trainee.step()
        self.loss_sum += number
        self.history.steps += 1

    def _loss(self, inputs: Any, targets: Any) -> Tensor:
        output = self._run(self.model, inputs)
        value = F.cross_entropy(output, targets) if self.loss is None else self.loss(output, targets)
        if self.teacher is None:
            return value
        with torch.no_grad():
            wanted = F.log_softmax(self._run(self.teacher, inputs) / self.temperature, dim=-1)
        given = F.log_softmax(output / self.temperature, dim=-1)
        distance = F.kl_div(given, wanted, reduction="batchmean", log_target=True) * self.temperature**2
        return (1 - self.distill_weight) * value + self.distill_weight * distance

    def _run(self, model: nn.Module, inputs: Any) -> Any:
        if self.precision == "float32":
            return model(inputs)
        with torch.autocast(self.accelerator.device.type, torch.bfloat16):
            output = model(inputs)
        return output.float() if isinstance(output, Tensor) else output

    def _end_epoch(self, began: float) -> None:
        metric = None
        if self.evaluate is not None:
            self.model.eval()
            with torch.no_grad():
                metric = float(self.evaluate(self.trainee))
            self.model.train()
        self.history.epochs.append(
            Epoch(
                epoch=self.epoch,
                loss=self.loss_sum / self.per_epoch,
                metric=metric,
                seconds=time.perf_counter() - began,
            )
        )
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
        self.save()

    def release(self) -> None:
        """Hand the model back on its own device, and forget accelerate's references to it."""
        self.trainee.to(self.home)
        if self.teacher is not None:
            self.teacher.to(self.teacher_home)
        self.accelerator.free_memory()

    @contextmanager
    def interruptible(self) -> Iterator[Callable[[], bool]]:
        """With a checkpoint folder, turn the first Ctrl-C into a flag read between steps."""
        if self.folder is None or threading.current_thread() is not threading.main_thread():
            yield lambda: False
            return
        seen: list[int] = []

        def note(number: int, frame: FrameType | None) -> None:
            seen.append(number)
            signal.signal(signal.SIGINT, before)

        before = signal.signal(signal.SIGINT, note)
        try:
            yield lambda: bool(seen)
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(description: str, total: int, show: bool) -> Iterator[Callable[[int, str], None]]:
    """A rich progress bar on stderr, or nothing."""
    if not show or total == 0:
        yield lambda done, note: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True, force_terminal=True), transient=True) as bar:
        task = bar.add_task(description, total=total, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)
