"""Trainings of one experiment: each in a process of its own, each result a file of its own.

A command makes a list of trials and calls :func:`run_trials`; the processes it starts are the same command with the
name and the seed of one trial. What is finished is never trained again, and what was interrupted goes on from its
checkpoint, so that hours of training can be had in pieces.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastcnn.cli.output import log, plain, progress_bar, write_atomically
from fastcnn.compression.finetune import History
from fastcnn.reporting.host import commit, host_facts

RESULT, LOG, SITTINGS = "result.json", "log.txt", "sittings.json"
MUST_AGREE = ("torch", "data_sha256", "settings")
"""Parts of a result that are the same in all trials that are compared with each other."""


@dataclass(frozen=True, kw_only=True, order=True)
class Trial:
    """One training: what it is called, and the seed of everything that is drawn in it."""

    name: str
    seed: int

    def folder(self, runs: Path) -> Path:
        """Where its checkpoint, log and result are."""
        return runs / f"{self.name.replace('/', '-')}-{self.seed}"

    def result(self, runs: Path) -> dict[str, Any] | None:
        """What it came to, or None if it is not finished."""
        path = self.folder(runs) / RESULT
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"


class TrialFailedError(RuntimeError):
    """A trial's process ended without a result."""


class StaleResultError(ValueError):
    """A finished trial was made otherwise than it would be now, or than those it is compared with."""


def run_trials(
    module: str,
    arguments: Sequence[str],
    trials: Iterable[Trial],
    runs: Path,
    *,
    jobs: int,
    title: str,
    settings: Callable[[Trial], Mapping[str, Any] | None] = lambda trial: None,
) -> None:
    """Run those trials that have no result yet, ``jobs`` at a time, as ``python -m module arguments --trial ...``.

    Parameters
    ----------
    settings : callable, optional
        What a trial's result has for settings if it is made now; None if it has none.

    Raises
    ------
    StaleResultError
        If a trial is finished that was made with other settings; before any is begun.
    TrialFailedError
        If a process fails; the others are interrupted and keep their checkpoints.
    KeyboardInterrupt
        On Ctrl-C, when every process has written its checkpoint.
    """
    waiting = []
    for trial in trials:
        result, now = trial.result(runs), settings(trial)
        if result is None:
            waiting.append(trial)
        elif now is not None and result["settings"] != plain(dict(now)):
            raise StaleResultError(
                f"{trial} was made with other settings than now: {result['settings']} and {plain(dict(now))}; remove "
                f"{trial.folder(runs)} or use another folder"
            )
    running: dict[Trial, subprocess.Popen[bytes]] = {}
    try:
        with progress_bar(title, len(waiting)) as advance:
            while waiting or running:
                while waiting and len(running) < jobs:
                    trial = waiting.pop(0)
                    running[trial] = _start(module, arguments, trial, runs)
                for trial in [trial for trial, process in running.items() if process.poll() is not None]:
                    code = running.pop(trial).returncode
                    done = trial.result(runs)
                    if code != 0 or done is None:
                        raise TrialFailedError(f"{trial}: ended with {code}; see {trial.folder(runs) / LOG}")
                    advance(note=str(trial))
                    log(f"{trial}: {done['accuracy']:.2f} %, {done['seconds']:.0f} s")
                time.sleep(0.2)
    finally:
        for process in running.values():
            process.send_signal(signal.SIGINT)
        for process in running.values():
            process.wait()


def _start(module: str, arguments: Sequence[str], trial: Trial, runs: Path) -> subprocess.Popen[bytes]:
    folder = trial.folder(runs)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, *arguments, "--trial", trial.name, "--seed", str(trial.seed)]
    with (folder / LOG).open("ab") as file:
        # A session of its own: Ctrl-C reaches it through run_trials alone, once.
        return subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True)


def sittings(trial: Trial, runs: Path) -> list[dict[str, str]]:
    """When a trial was begun and gone on with, and by which commit; one line for each process that worked on it."""
    path = trial.folder(runs) / SITTINGS
    known: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return known


def sit_down(trial: Trial, runs: Path) -> None:
    """Note that this process works on a trial."""
    line = {"commit": commit(), "date": datetime.now().isoformat(timespec="seconds")}
    path = trial.folder(runs) / SITTINGS
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps([*sittings(trial, runs), line], indent=1) + "\n")


def write_result(
    trial: Trial, runs: Path, found: Mapping[str, Any], *, history: History, settings: Mapping[str, Any], data: str
) -> None:
    """Write down what a trial came to, with all that is needed to believe it.

    Parameters
    ----------
    found : dict
        Of this trial alone: ``accuracy`` in percent, sizes and whatever else.
    settings : dict
        That all trials of a record share.
    data : str
        Hash of pictures and labels.
    """
    document = {
        "name": trial.name,
        "seed": trial.seed,
        "commit": commit(),
        "sittings": sittings(trial, runs),
        "date": datetime.now().isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "data_sha256": data,
        "settings": dict(settings),
        **found,
        "seconds": round(sum(entry.seconds for entry in history.epochs), 1),
        "curve": [asdict(entry) for entry in history.epochs],
        "host": plain(host_facts()),
    }
    write_atomically(trial.folder(runs) / RESULT, json.dumps(plain(document), indent=1) + "\n")


def restore(record: Path, trials: Iterable[Trial], runs: Path) -> None:
    """Put the results that a command's JSON file holds where the folder has none; not their nets.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or is none of results.
    """
    try:
        known = {(run["name"], run["seed"]): run for run in json.loads(record.read_text(encoding="utf-8"))["runs"]}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{record} holds no results of trainings") from error
    for trial in trials:
        result = known.get((trial.name, trial.seed))
        if result is not None and trial.result(runs) is None:
            trial.folder(runs).mkdir(parents=True, exist_ok=True)
            write_atomically(trial.folder(runs) / RESULT, json.dumps(result, indent=1) + "\n")


def gather(
    trials: Iterable[Trial], runs: Path, *, group: Callable[[Trial], str] = lambda trial: ""
) -> list[dict[str, Any]]:
    """Results of the finished trials, in that order; those of one ``group`` are compared with each other.

    Raises
    ------
    StaleResultError
        If two of them were made from other data, with another torch or by other settings.
    """
    found = [(trial, result) for trial in trials if (result := trial.result(runs)) is not None]
    first: dict[str, tuple[Trial, dict[str, Any]]] = {}
    for trial, result in found:
        other, known = first.setdefault(group(trial), (trial, result))
        for name in MUST_AGREE:
            if result[name] != known[name]:
                raise StaleResultError(
                    f"{trial} was made with another {name} than {other}: {result[name]} and {known[name]}; "
                    f"remove {trial.folder(runs)} or use another folder"
                )
    return [result for _, result in found]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and sample standard deviation of one number over seeds; a single seed has no deviation."""

    values: tuple[float, ...]
    mean: float
    sd: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        kept = tuple(values)
        deviation = statistics.stdev(kept) if len(kept) > 1 else None
        return cls(values=kept, mean=statistics.fmean(kept), sd=deviation)


def versus(ours: Spread, theirs: Spread) -> dict[str, Any]:
    """How much higher the first is, the standard deviation of two single runs' difference, and who is ahead by more."""
    difference = ours.mean - theirs.mean
    deviation = None if ours.sd is None or theirs.sd is None else (ours.sd**2 + theirs.sd**2) ** 0.5
    ahead = "unknown" if deviation is None else "neither"
    if deviation is not None and abs(difference) > deviation:
        ahead = "first" if difference > 0 else "second"
    return {"difference": difference, "sd": deviation, "ahead": ahead}


def add_arguments(parser: argparse.ArgumentParser, seeds: Sequence[int]) -> None:
    """What every command of trials takes, and what it gives to the processes it starts."""
    parser.add_argument("--runs", type=Path, required=True, help="folder for checkpoints and results of trainings")
    parser.add_argument("--out", type=Path, help="JSON file to write: all results, and the gates")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--trial", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)


def complaint(options: argparse.Namespace) -> str:
    """What is wrong with them; empty if nothing is."""
    if options.out is None:
        return "--out is missing: name the JSON file to write"
    if min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        return f"--seeds: {' '.join(map(str, options.seeds))} must be different numbers from 0 up"
    return "--jobs must be at least 1" if options.jobs < 1 else ""


def parameters(model: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(p.numel() for p in model.parameters())


def interrupted_or(main: Callable[[], int], runs: Path) -> int:
    """Run a command; 130 on Ctrl-C, 1 if a trial failed or does not go with the others."""
    try:
        return main()
    except KeyboardInterrupt:
        log(f"interrupted: {runs} holds results and checkpoints; run again to go on")
        return 130
    except (TrialFailedError, StaleResultError) as error:
        log(f"error: {error}")
        return 1
