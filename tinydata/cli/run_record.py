"""What a command leaves about its run: when it ran, for how long, and how it was called."""

from __future__ import annotations

import shlex
import time
from typing import Any

import click


def record(out: str, began: float, **facts: Any) -> None:
    """Writes the run's time and command next to the manifest, which does not depend on either."""
    from tinydata.core.location import Location, to_json

    command = shlex.join(["tinydata", *(click.get_current_context().obj or [])])
    (Location.of(out) / ".run.json").write(to_json({"command": command, "seconds": time.time() - began, **facts}))
