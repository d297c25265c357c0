"""The options of the backend: those of :func:`fastcnn.compile`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fastcnn.engine.api import resolve_threads, resolve_tolerance


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """``torch.compile(..., options={...})``.

    Parameters
    ----------
    tolerance : {"exact", "fp32"} or float
        Largest error of each net, as in :func:`fastcnn.compile`.
    threads : int, optional
        Threads of one inference; one for each physical core by default.
    strict : bool
        Raise where a graph, or an operation in it, would run in torch.
    tune : bool
        Time the candidates of every layer when a graph is compiled (seconds, remembered on disk).
    """

    tolerance: str | float = "fp32"
    threads: int | None = None
    strict: bool = False
    tune: bool = True

    def __post_init__(self) -> None:
        resolve_tolerance(self.tolerance)
        resolve_threads(self.threads)
        for name in ("strict", "tune"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"options: {name}={getattr(self, name)!r} must be True or False")

    @classmethod
    def parse(cls, options: Mapping[str, Any] | None) -> BackendOptions:
        """Check a user's dict.

        Raises
        ------
        ValueError, TypeError
            For an unknown key, or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = [key for key in options or {} if key not in known]
        if unknown:
            raise ValueError(f"options: {', '.join(map(repr, unknown))} not known: choose from {', '.join(known)}")
        return cls(**dict(options or {}))
