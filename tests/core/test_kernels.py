"""The first compilation is announced once, and the next process finds what was compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TWICE = """
import logging, numpy as np
logging.basicConfig(level=logging.INFO, format="%(message)s")
logging.getLogger("numba").setLevel(logging.WARNING)
from tinydata.core.kernels import gather
for _ in range(2):
    print(gather(np.arange(3), np.array([1, 2]), np.array([1, 0])).tolist())
"""


def test_compiling_is_said_once_and_the_next_process_finds_it(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", TWICE], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [each.stdout for each in said] == ["[1, 2, 0]\n[1, 2, 0]\n"] * 2
    assert said[0].stderr == "compiling kernels; the next run finds them in a cache\n"
    assert said[1].stderr == ""
