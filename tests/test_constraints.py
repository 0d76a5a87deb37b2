"""constraints.txt pins everything that pyproject.toml asks for, once for every Python that is supported."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [x.partition("#")[0].strip() for x in (ROOT / "constraints.txt").read_text().splitlines()]
PINS = [Requirement(x) for x in LINES if x]
EXTRAS = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("extra", EXTRAS)
def test_each_dependency_has_one_version_that_fits(extra: str, python: str):
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    for wanted in (Requirement(x) for x in EXTRAS[extra]):
        if wanted.name == PROJECT["name"]:
            continue
        same = [x for x in PINS if canonicalize_name(x.name) == canonicalize_name(wanted.name)]
        valid = [x for x in same if x.marker is None or x.marker.evaluate(here)]
        assert len(valid) == 1, f"{wanted}: {[str(x) for x in valid]}"
        (pin,) = valid[0].specifier
        assert pin.operator == "==" and wanted.specifier.contains(pin.version), f"{wanted}: {valid[0]}"


def test_nothing_but_versions():
    """No place to load from: every pin is the same for everybody."""
    assert all(x.url is None and [s.operator for s in x.specifier] == ["=="] for x in PINS)
