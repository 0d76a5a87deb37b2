"""The checks of `tinydata doctor`, each with a fix; those of Spark are in spark_checks.py."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tinydata import __version__
from tinydata.core.errors import TinydataError

Check = dict[str, Any]  # name, ok (True, False, None: not needed here), found, fix

_BASE = ("click", "rich", "numpy", "pyarrow", "numba", "tokenizers")
_EXTRAS = {
    "sentencepiece": "spm",
    "protobuf": "spm",
    "pyspark": "spark",
    "pandas": "spark",
    "jinja2": "report",
    "vl-convert-python": "report",
}


def versions() -> dict[str, str]:
    """For --version and bug reports."""
    found = {"tinydata": __version__, "python": platform.python_version()}
    found["git"] = _git() or "not a checkout"
    found["spark"] = installed_version("pyspark") or "not installed"
    return found


def _git() -> str:
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not os.path.exists(os.path.join(here, ".git")) or not shutil.which("git"):
        return ""
    done = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip()


def installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def all_checks(engine: str = "local", tokenizer: str = "") -> list[Check]:
    """All checks, in order."""
    checks = [_python()]
    checks += [_package(name, f"pip install {name}", needed=True) for name in _BASE]
    needs = ("pyspark", "pandas") if engine == "spark" else ()
    checks += [_package(n, f"pip install 'tinydata[{extra}]'", needed=n in needs) for n, extra in _EXTRAS.items()]
    checks += [_space(), _kernels()]
    if tokenizer:
        checks.append(_tokenizer(tokenizer))
    if engine == "spark":
        from tinydata.cli.spark_checks import spark_checks

        checks += spark_checks()
    return checks


def checks_text(checks: list[Check]) -> str:
    lines = []
    for i, c in enumerate(checks, 1):
        mark = {True: "\u2713", False: "\u2717", None: "\u2298"}[c["ok"]]
        lines.append(f"[{i}/{len(checks)}] {mark} {c['name']}: {c['found']}")
        if c["ok"] is False or (c["ok"] is None and c["fix"]):
            lines.append(f"        fix: {c['fix']}" if c["ok"] is False else f"        if you need it: {c['fix']}")
    return "\n".join(lines)


def check(name: str, ok: bool | None, found: str, fix: str = "") -> Check:
    return {"name": name, "ok": ok, "found": found, "fix": fix}


def _python() -> Check:
    good = sys.version_info >= (3, 11)
    return check("python", good, platform.python_version(), "use Python 3.11, 3.12 or 3.13")


def _package(name: str, fix: str, needed: bool) -> Check:
    found = installed_version(name)
    if name == "pandas" and found and int(found.split(".")[0]) >= 3:
        return check(
            name,
            False if needed else None,
            f"{found}, which PySpark does not work with",
            "pip install 'pandas>=2.2,<3'",
        )
    return check(name, True if found else (False if needed else None), found or "not installed", fix)


def _space() -> Check:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    return check(
        "temporary disk",
        free > 1 << 30,
        f"{free / 1e9:.1f} GB free in {tempfile.gettempdir()}",
        "free more than 1 GB, or set TMPDIR to another disk",
    )


def _kernels() -> Check:
    try:
        import numpy as np

        from tinydata.verbs.count.worker import count_ids

        ids = np.array([3, 1, -1, 2], np.int32)
        counts, totals, wrong = np.zeros((1, 4), np.int64), np.zeros((1, 4), np.int64), np.full(1, -1, np.int64)
        offsets, groups = np.array([0, 4], np.int32), np.zeros(1, np.int32)
        count_ids(ids, ids.view(np.uint32), offsets, groups, counts, totals, wrong)
        good = counts[0].tolist() == [0, 2, 1, 1]
        return check(
            "compiled kernels", good, "count correctly" if good else "count wrongly", "reinstall numba and numpy"
        )
    except Exception as e:  # whatever numba or llvmlite raise on a broken installation
        return check(
            "compiled kernels", False, f"do not compile: {e}", "pip install --force-reinstall numba llvmlite numpy"
        )


def _tokenizer(path: str) -> Check:
    try:
        from tinydata.tokenizers.open import open_tokenizer
        from tinydata.tokenizers.probe import words_first

        tok = open_tokenizer(path)
        text = "naïve 中文 tokens\n\t 123"
        same = tok.decode(tok.encode([text])[0]) == text
        exact, why = words_first(tok)
        how = "text is counted words first" if exact else f"text is encoded whole: {why}"
        return check(
            "tokenizer",
            same,
            f"{tok.family}, {tok.size:,} ids; {how}",
            "check the tokenizer's files: encoding a text and decoding the ids does not return the text",
        )
    except TinydataError as e:
        return check("tokenizer", False, e.what, e.fix)
