"""Formats numbers, sizes, durations and tables as text."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def table(rows: list[Row], columns: dict[str, str]) -> str:
    """rows, {key: heading} -> text table with aligned columns; numbers are right-aligned."""
    if not rows:
        return ""
    cells = [[_shown(r.get(k)) for k in columns] for r in rows]
    heads = list(columns.values())
    right = [all(isinstance(r.get(k), (int, float)) or _number(r.get(k)) for r in rows) for k in columns]
    widths = [max(len(h), *(len(c[i]) for c in cells)) for i, h in enumerate(heads)]

    def line(values: list[str]) -> str:
        return "  ".join(
            v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(heads), *(line(c) for c in cells)])


def _number(value: Any) -> bool:
    return isinstance(value, str) and value[:1] in "+-0123456789" and value.strip("+-0123456789.,% GMkB") == ""


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    return str(value)


def many(n: int, word: str) -> str:
    """A count and a noun -> both, with a plural s if needed: (3, "file") -> "3 files"."""
    return f"{n:,} {word}{'s' * (n != 1)}"


def size(n: float) -> str:
    """Bytes -> text in decimal units: 1.96e9 -> "1.96 GB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(n) < 999.5 or unit == "TB":
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:.3g} {unit}"
        n /= 1000
    raise AssertionError


def seconds(n: float) -> str:
    """Seconds -> text: 12.3 -> "12 s", 7620 -> "2 h 7 min"."""
    if n < 100:
        return f"{n:.1f} s" if n < 10 else f"{n:.0f} s"
    if n < 6000:
        return f"{n / 60:.0f} min"
    return f"{n // 3600:.0f} h {n % 3600 // 60:.0f} min"


def visible(text: str) -> str:
    """Token text -> the same with spaces and control characters made visible."""
    out = text.replace(" ", "\u2423")
    return "".join(
        c if c.isprintable() else {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c, f"\\x{ord(c):02x}") for c in out
    )


Result = tuple[Any, str]  # a command's result: for --json, and as text
