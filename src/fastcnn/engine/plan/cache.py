"""Tuned choices on disk: one small JSON file per net, host, thread count and version.

``FASTCNN_CACHE`` names the folder (default ``~/.cache/fastcnn``); an empty value turns the cache off. A damaged or
unwritable cache is ignored: it only costs time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fastcnn import __version__, _native
from fastcnn.engine.graph.graph import Graph
from fastcnn.engine.graph.schema import Shape
from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.plan import Bands

_VERSION = 20  # raise when candidates or kernels change what is fastest


def cache_dir() -> Path | None:
    """Folder of the cache, or None if it is turned off."""
    given = os.environ.get("FASTCNN_CACHE")
    if given is not None:
        return Path(given) if given else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "fastcnn"
    except RuntimeError:  # no home folder can be found
        return None


def plan_key(graph: Graph, shapes: Mapping[str, Shape], target: Target, tolerance: float) -> str:
    """Hash of everything the best choice depends on; weights' values do not."""
    structure = [
        [
            n.name,
            n.op,
            list(n.inputs),
            dict(n.attrs),
            list(shapes[n.name]),
            [list(graph.weights[k].shape) for k in n.params.values()],
        ]
        for n in graph.nodes
    ]
    facts = {
        "version": [_VERSION, __version__],
        "cpu": _native.host()["cpu"],
        "isa": target.isa,
        "threads": target.threads,
        "l2": target.l2_bytes,
        "tolerance": tolerance,
        "inputs": [list(shapes[v.name]) for v in graph.inputs],
        "graph": structure,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class TunedBefore:
    """What an earlier tuning run found.

    The winner of every layer, the seconds of all that were timed, and the groups of steps that are faster together:
    with ``band_choices``, which an error budget or a limit for weights can have made others than the winners.
    """

    choices: Mapping[str, str]
    seconds: Mapping[str, dict[str, float]]
    bands: Sequence[Bands]
    band_choices: Mapping[str, str]


def load_tuned(key: str) -> TunedBefore | None:
    folder = cache_dir()
    if folder is None:
        return None
    try:
        found = json.loads((folder / "plans" / f"{key}.json").read_text(encoding="utf-8"))
        choices, band_choices = (
            {str(layer): str(label) for layer, label in found[name].items()} for name in ("choices", "band_choices")
        )
        seconds = {
            str(layer): {str(label): float(time) for label, time in times.items()}
            for layer, times in found["seconds"].items()
        }
        bands = [
            Bands(layer=str(b["layer"]), steps=int(b["steps"]), rows=max(1, int(b["rows"]))) for b in found["bands"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return TunedBefore(choices, seconds, bands, band_choices)


def store_tuned(key: str, tuned: TunedBefore) -> None:
    """Write aside, then rename; a folder that cannot be written is left alone."""
    folder = cache_dir()
    if folder is None:
        return
    try:
        (folder / "plans").mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder / "plans", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                bands = [asdict(b) for b in tuned.bands]
                found = {
                    "choices": dict(tuned.choices),
                    "seconds": dict(tuned.seconds),
                    "bands": bands,
                    "band_choices": dict(tuned.band_choices),
                }
                json.dump(found, file)
            os.replace(name, folder / "plans" / f"{key}.json")
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError:
        return
