"""Numbers and token text -> strings as they appear on the page."""

from __future__ import annotations

import re
from itertools import groupby

_SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def number(n: float) -> str:
    """1234.5 -> 1,234, with a real minus sign."""
    return f"{n:,.0f}".replace("-", "−")


def ratio(x: float) -> str:
    """1.2345 -> 1.234"""
    return f"{x:,.3f}"


def share(x: float) -> str:
    """0.978 -> 97.80%; values just below 100% or just above 0% are marked as such."""
    shown = f"{x:.2%}"
    if shown == "100.00%" and x < 1:
        return "> 99.99%"
    return "< 0.01%" if shown == "0.00%" and x > 0 else shown


def change(x: float) -> str:
    """0.011 -> +1.10%"""
    shown = f"{x:+.2%}"
    return "0.00%" if shown in ("+0.00%", "-0.00%") else shown.replace("-", "−")


def thousands(n: int) -> str:
    """48000 -> 48k"""
    return f"{n / 1000:g}k"


def runs(text: str) -> list[tuple[str, bool]]:
    """Token text -> [(characters, whether they stand for invisible characters)].

    The page highlights the latter, so that a line break and a backslash followed by n do not look alike.
    """
    signs = [(_sign(c), not c.isprintable() or c == " ") for c in text]
    return [("".join(s for s, _ in group), hidden) for hidden, group in groupby(signs, key=lambda s: s[1])]


def passage(text: str) -> list[tuple[str, bool]]:
    """Running text -> as `runs`, but readable: single spaces stay, and line breaks break the line too."""
    out: list[tuple[str, bool]] = []
    for part in _BLANKS.split(text):
        if _BLANKS.fullmatch(part):
            shown = [(f"{_sign(c)}\n" if c == "\n" else _sign(c), True) for c in part]
            out += [("".join(s for s, _ in shown), True)]
        elif part:
            out += [("".join(s for s, _ in g), h) for h, g in groupby(map(_plain, part), key=lambda s: s[1])]
    return out


_BLANKS = re.compile(r"([\n\t\r ]{2,}|[\n\t\r])")


def _plain(c: str) -> tuple[str, bool]:
    return (c, False) if c == " " else (_sign(c), not c.isprintable())


def _sign(c: str) -> str:
    return c if c.isprintable() and c != " " else _SIGNS.get(c, f"U+{ord(c):04X}")
