"""Make the record of the zoo: ``python -m fastcnn.reproduction.zoo --out benchmarks/results/zoo.json``.

Every net runs in a process of its own, with a limit on memory and time. The record is written after each, so that an
interrupted run goes on where it stopped; ``--again`` measures nets anew that are already in it. Every net has the
commit it was measured at, marked "-dirty" if there were uncommitted changes; the page says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastcnn._extras import MissingExtraError
from fastcnn.cli.output import log, plain, progress_bar, write_atomically
from fastcnn.reporting.host import commit, host_facts
from fastcnn.reproduction.zoo.measure import BATCH, MAX_ERROR
from fastcnn.reproduction.zoo.nets import NETS, ZooNet

MIN_NETS, MIN_FAMILIES = 60, 15
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_net(net: ZooNet, *, memory_gib: float, timeout_s: float) -> dict[str, Any]:
    """Measure one net in a fresh process; a process that fails gives a record with status "failed" and the reason."""
    environment = dict(os.environ) | dict.fromkeys(_THREAD_VARIABLES, "1")
    source = str(Path(__file__).resolve().parents[3])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (source, environment.get("PYTHONPATH", ""))))
    with tempfile.TemporaryDirectory(prefix="fastcnn-zoo-") as folder:
        result = Path(folder) / "record.json"
        command = [sys.executable, "-P", "-m", "fastcnn.reproduction.zoo.worker", net.name, str(result)]
        try:
            done = subprocess.run(
                [*command, str(memory_gib)],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _failed(net, f"no answer within {timeout_s:.0f} s")
        if done.returncode == 0:
            record: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return record
    lines = done.stderr.decode("utf-8", errors="replace").strip().splitlines() or ["no output"]
    died = f"died of signal {-done.returncode}: " if done.returncode < 0 else ""
    return _failed(net, died + lines[-1].removeprefix("error: "))


def _failed(net: ZooNet, reason: str) -> dict[str, Any]:
    return {"net": net.name, "family": net.family, "module": net.module, "status": "failed", "reason": reason}


def facts() -> dict[str, Any]:
    """Where and with what the record is made."""
    return {"commit": commit(), "torch": torch.__version__, "host": plain(host_facts())}


def summary(records: Sequence[dict[str, Any]], made: dict[str, Any]) -> dict[str, Any]:
    """The whole document: ``facts``, what was asked, how many nets and families keep it, and every net's record."""
    native = [record for record in records if record["status"] == "native"]
    families = {record["family"] for record in native}
    return {
        **made,
        "settings": {"batch": BATCH, "threads": 1, "tolerance": "fp32", "tune": False, "strict": True},
        "gates": {"max_error": MAX_ERROR, "min_nets": MIN_NETS, "min_families": MIN_FAMILIES},
        "native_nets": len(native),
        "native_families": len(families),
        "passed": len(native) >= MIN_NETS and len(families) >= MIN_FAMILIES,
        "nets": list(records),
    }


def _known(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    state = {"commit": document["commit"]}  # of nets in records of earlier versions
    return {record["net"]: state | record for record in document["nets"] if record["net"] in NETS}


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if the gates hold, 1 if not, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m fastcnn.reproduction.zoo", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, and to go on with")
    parser.add_argument("--only", nargs="+", choices=sorted(NETS), metavar="NET", help="measure these nets only")
    parser.add_argument("--again", action="store_true", help="measure nets that the file already holds")
    parser.add_argument("--memory-gib", type=float, default=12.0, help="limit of each process's address space")
    parser.add_argument("--timeout-s", type=float, default=900.0, help="limit of each process's time")
    options = parser.parse_args(arguments)
    try:
        _require_zoo()
        records = _known(options.out)
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log(f"error: --out: {options.out} cannot be used: {error!r}")
        return 2
    except MissingExtraError as error:
        log(f"error: {error}")
        return 2
    wanted = [NETS[name] for name in options.only or NETS if options.again or name not in records]
    made = facts()
    if wanted and str(made["commit"]).endswith("-dirty"):
        log("warning: there are uncommitted changes: the record will say so; commit them first to make a clean one")
    with progress_bar("zoo", len(wanted)) as advance:
        for net in wanted:
            record = run_net(net, memory_gib=options.memory_gib, timeout_s=options.timeout_s)
            records[net.name] = record | {"commit": made["commit"]}
            document = summary([records[name] for name in NETS if name in records], made)
            write_atomically(options.out, json.dumps(document, indent=1) + "\n")
            log(f"{net.name}: {_line(record)}")
            advance(note=net.name)
    document = summary([records[name] for name in NETS if name in records], made)
    print(json.dumps({key: value for key, value in document.items() if key != "nets"}, indent=1))
    return 0 if document["passed"] else 1


def _line(record: dict[str, Any]) -> str:
    if record["status"] in ("native", "inexact"):
        return f"{record['status']}, error {record['error']:.1e} (torch {record['torch_error']:.1e})"
    return f"{record['status']}: {record['reason']}"


def _require_zoo() -> None:
    import importlib.util

    if importlib.util.find_spec("pytorchcv") is None:
        raise MissingExtraError(
            "the zoo needs pytorchcv, which is not installed: run  python3 -m pip install --no-deps pytorchcv==0.0.74"
        )


if __name__ == "__main__":
    sys.exit(main())
