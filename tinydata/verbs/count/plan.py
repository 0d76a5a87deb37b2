"""Options that affect the result of `count`."""

from __future__ import annotations

from typing import NamedTuple

from tinydata.formats.base import Wanted


class Settings(NamedTuple):
    """All options that affect the result, and no others."""

    heldout: float = 0.01  # share of documents set aside
    wanted: Wanted = Wanted()
    max_bad: float = 0.001  # share of documents that may be unusable


DEFAULTS = Settings()
