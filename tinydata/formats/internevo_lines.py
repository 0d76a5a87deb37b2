"""Compiled kernels that parse and format the lines of InternEvo's cache.

They are imported where they are used, so that looking at a corpus does not load numba.
"""

from __future__ import annotations

import numpy as np

from tinydata.core.kernels import compiled, inlined

_SPACE, _NEWLINE, _RETURN, _QUOTE = ord(" "), ord("\n"), ord("\r"), ord('"')
_MINUS, _COMMA, _ZERO, _NINE, _BRACKET = ord("-"), ord(","), ord("0"), ord("9"), ord("]")
_LARGEST, _DIGITS = 2**31 - 1, 10  # of an id, and as many digits as it has
_FAILED = -1  # instead of a position: the line is not what was expected here


@compiled()
def parse_lines(data, starts, ids, ends, ok):
    """Lines {"tokens": [int, ...]} -> number of ids; any other line contributes no ids.

    data uint8[...], starts int64[lines]: first byte of each line -> ids int32[total], ends int64[lines]: total after
    each line, ok bool[lines]: whether it was parsed. 130 M tokens a second: json.loads on the same lines manages 12.
    """
    total = 0
    for line in range(len(starts)):
        stop = starts[line + 1] if line + 1 < len(starts) else len(data)
        at = _skip(data, starts[line], stop, b'{"tokens":[')
        count = 0
        if at != _FAILED:
            at, count = _parse_list(data, at, stop, ids, total)
        if at != _FAILED:
            at = _skip(data, at, stop, b"]}")
        ok[line] = at != _FAILED and _is_blank(data, at, stop)
        if ok[line]:
            total += count
        ends[line] = total
    return total


@inlined()
def _parse_list(data, at, stop, ids, total):
    """Integers, separated by commas, up to the closing bracket -> ids[total:], (its position, number of ids)."""
    count = 0
    at = _skip_spaces(data, at, stop)
    if at < stop and data[at] == _BRACKET:
        return at, count
    while True:
        at = _skip_spaces(data, at, stop)
        sign = 1
        if at < stop and data[at] == _MINUS:
            sign = -1
            at += 1
        first = at
        value = np.int64(0)
        while at < stop and _ZERO <= data[at] <= _NINE:
            value = value * 10 + np.int64(data[at] - _ZERO)
            at += 1
        digits = at - first
        if digits == 0 or digits > _DIGITS or value > _LARGEST or (data[first] == _ZERO and digits > 1):
            return _FAILED, 0
        ids[total + count] = np.int32(sign * value)
        count += 1
        at = _skip_spaces(data, at, stop)
        if at < stop and data[at] == _BRACKET:
            return at, count
        if at >= stop or data[at] != _COMMA:
            return _FAILED, 0
        at += 1


@inlined()
def _skip(data, at, stop, text):
    """-> the position after `text`, with any spaces between its characters except inside quotes, or _FAILED."""
    quoted = False
    for c in text:
        if not quoted:
            at = _skip_spaces(data, at, stop)
        if at >= stop or data[at] != c:
            return _FAILED
        quoted ^= c == _QUOTE
        at += 1
    return at


@inlined()
def _skip_spaces(data, at, stop):
    while at < stop and data[at] == _SPACE:
        at += 1
    return at


@inlined()
def _is_blank(data, at, stop):
    while at < stop and (data[at] == _SPACE or data[at] == _NEWLINE or data[at] == _RETURN):
        at += 1
    return at == stop


@compiled()
def format_lines(ids, ends, text, stops):
    """ids int32[n], ends int64[docs] -> number of bytes of the lines {"tokens": [1, 2]}.

    Writes the lines to text uint8[...], and where each of them ends to stops int64[docs].
    """
    n = 0
    k = 0
    for doc in range(len(ends)):
        for c in b'{"tokens": [':
            text[n] = c
            n += 1
        first = True
        while k < ends[doc]:
            if not first:
                text[n], text[n + 1] = 0x2C, 0x20
                n += 2
            first = False
            v = np.int64(ids[k])
            k += 1
            if v < 0:
                text[n] = 0x2D
                n += 1
                v = -v
            digits = 1
            while v >= np.int64(10) ** digits:
                digits += 1
            for d in range(digits):
                text[n + digits - 1 - d] = 0x30 + v % 10
                v //= 10
            n += digits
        for c in b"]}\n":
            text[n] = c
            n += 1
        stops[doc] = n
    return n
