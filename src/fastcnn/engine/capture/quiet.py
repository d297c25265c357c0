"""Silence for torch's loggers while capture asks it questions that it may well answer with an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_ABOVE_ALL = logging.CRITICAL + 1


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Let no logger of torch write anything for the time being; levels are put back, whatever happens.

    Besides ``torch`` itself, the loggers below it that have a level of their own are raised: torch gives them one when
    logs are asked for (``TORCH_LOGS``, ``torch._logging.set_logs``), and they would not heed their parent's. Loggers
    that appear meanwhile inherit the silence.
    """
    torch_loggers = [
        logger
        for name, logger in list(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger)
        and (name == "torch" or (name.startswith("torch.") and logger.level != logging.NOTSET))
    ]
    levels = [(logger, logger.level) for logger in torch_loggers]
    try:
        for logger in torch_loggers:
            logger.setLevel(_ABOVE_ALL)
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
