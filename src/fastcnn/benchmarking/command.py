"""What commands that measure one question share: options of timing, what can go wrong, and the record they write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fastcnn._extras import MissingExtraError
from fastcnn.benchmarking.engines import ENGINES
from fastcnn.benchmarking.process import EngineFailedError
from fastcnn.cli.output import log, plain, write_atomically
from fastcnn.reporting.host import commit, host_facts


def add_timing(parser: argparse.ArgumentParser, *, rounds: int, seconds: float = 1.0) -> None:
    """Give a parser --threads, --rounds and --seconds."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=float, default=seconds, help="of each block")


def timing_of(options: argparse.Namespace) -> dict[str, Any]:
    """Threads, rounds and seconds, by name."""
    return {key: getattr(options, key) for key in ("threads", "rounds", "seconds")}


def complaint(options: argparse.Namespace, peers: Iterable[str] = ()) -> str:
    """What is wrong with the options of timing, or which peers' modules are missing; empty if nothing."""
    if options.threads < 1 or options.rounds < 1 or not 0 < options.seconds < 1e4:
        return "--threads and --rounds must be at least 1, --seconds above 0"
    return missing_peers(peers)


def missing_peers(peers: Iterable[str]) -> str:
    """Which modules of these engines are not installed, and how to have them; empty if all are there."""
    missing = sorted({name for peer in peers for name in ENGINES[peer].missing()})
    return f'{", ".join(missing)} missing: run  python3 -m pip install "fastcnn[bench]"' if missing else ""


def guarded(work: Callable[[], int], *, bad_input: tuple[type[Exception], ...] = (OSError,)) -> int:
    """Run a command's work; 130 on Ctrl-C, 1 if an engine fails, 2 on bad input, each said in a line."""
    try:
        return work()
    except KeyboardInterrupt:
        log("interrupted: nothing was written")
        return 130
    except (EngineFailedError, MissingExtraError) as error:
        log(f"error: {error}")
        return 1
    except bad_input as error:
        log(f"error: {error}")
        return 2


def write_record(out: Path, found: Mapping[str, Any]) -> None:
    """Write what was found as JSON, between commit and date and what is known of this host."""
    document = {
        "commit": commit(),
        "date": datetime.now().isoformat(timespec="seconds"),
        **found,
        "host": host_facts(),
    }
    write_atomically(out, json.dumps(plain(document), indent=1) + "\n")
