"""Layers that a trained method leaves alone by default, and those that the user excludes."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from fastcnn.methods.contract import check_choice, check_patterns

SKIPS = ("first_conv", "last_linear", "depthwise")


def check_skip(value: object) -> tuple[str, ...]:
    """Words of a config's ``skip`` as a tuple; TypeError or ValueError for others than :data:`SKIPS`."""
    words = check_patterns("skip", value)
    for word in words:
        check_choice("skip", word, SKIPS)
    return words


def last_linear(model: nn.Module) -> str | None:
    """Name of the last linear layer in the order of ``named_modules``; None without one."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1] if names else None


def exclusions(model: nn.Module, skip: Sequence[str], exclude: Sequence[str]) -> dict[str, str]:
    """Why layers are left alone, by name; first and last are meant in the order of ``named_modules``."""
    convs = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    last = last_linear(model)
    reasons: dict[str, str] = {}
    if "depthwise" in skip:
        for name, conv in convs:
            if conv.groups > 1 and conv.groups == conv.in_channels:
                reasons[name] = "depthwise convolution (skip has 'depthwise')"
    if "first_conv" in skip and convs:
        reasons[convs[0][0]] = "first convolution (skip has 'first_conv')"
    if "last_linear" in skip and last is not None:
        reasons[last] = "last linear layer (skip has 'last_linear')"
    for name, _ in model.named_modules():
        for pattern in exclude:
            if fnmatchcase(name, pattern):
                reasons[name] = f"excluded by {pattern!r}"
    return reasons
