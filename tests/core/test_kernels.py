"""Compiled code is cached in a directory of this user where numba finds none, or it is compiled each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import logging, numpy as np
logging.basicConfig(level=logging.INFO, format="%(message)s")
from tinydata.core import kernels
from tinydata.core.kernels import gather
print(kernels.CACHED, kernels.numba.config.CACHE_DIR)
"""


def run(tmp: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As in a container whose package directory and home are not writable: only a given directory is a cache."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA")}
    locator = "numba.core.caching.UserProvidedCacheLocator"
    only = {"NUMBA_CACHE_LOCATOR_CLASSES": locator, "TMPDIR": str(tmp), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", CODE], env={**kept, **only, **environment}, capture_output=True, text=True, check=True
    )


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    place = tmp_path / "tmp"
    place.mkdir()
    return place


def test_a_directory_of_this_user_is_the_cache(tmp: Path) -> None:
    done = run(tmp)
    assert done.stdout.split() == ["True", str(tmp / f"tinydata-kernels-{os.getuid()}")]
    (place,) = tmp.iterdir()
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["shared", "link", "file"])
def test_a_directory_that_others_can_write_is_not_trusted(tmp: Path, damage: str) -> None:
    place = tmp / f"tinydata-kernels-{os.getuid()}"
    if damage == "shared":
        place.mkdir()
        place.chmod(0o777)
    elif damage == "link":
        (tmp / "elsewhere").mkdir()
        place.symlink_to(tmp / "elsewhere")
    else:
        place.write_text("x")
    assert run(tmp).stdout.split()[0] == "False"


def test_a_given_directory_is_used(tmp: Path) -> None:
    assert run(tmp, NUMBA_CACHE_DIR=str(tmp / "mine")).stdout.split() == ["True", str(tmp / "mine")]
