"""The regexes by which pre-tokenizers cut text into words, as functions: (text, position) -> end of the word there.

Classes of characters are looked up in a table, uint8[0x110000].
"""

from __future__ import annotations

import numpy as np

from tinydata.core.kernels import compiled, inlined
from tinydata.tokenizers.kernels.bpe import char_at

OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3
# O200k tells letters by case: LETTER is neither (Lm, Lo), and marks are another kind
UPPER, LOWER, MARK = 4, 5, 6
# DeepSeek tells punctuation and symbols from the rest, which is OTHER; CJK is a flag beside the kind
SYMBOL, KIND, CJK = 7, 15, 16


@inlined()
def _class(data, i, classes):
    c, w = char_at(data, i)
    return classes[c], w


@inlined()
def _run(data, i, stop, kind, classes):
    """End of the run of characters of `kind` that starts at i."""
    while i < stop:
        b = data[i]
        if b < 0x80:
            if classes[b] != kind:
                break
            i += 1
        else:
            k, w = _class(data, i, classes)
            if k != kind:
                break
            i += w
    return i


@compiled()
def _white(data, i, stop, classes):
    """`\\s+(?!\\S)|\\s+` at white space i: the run, without its last character if text follows."""
    last = i
    j = i
    while j < stop:
        k, w = _class(data, j, classes)
        if k != SPACE:
            return last if last > i else j
        last = j
        j += w
    return j


@inlined()
def _lines(data, i, stop, classes):
    """`\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+` at white space i."""
    j = _run(data, i, stop, SPACE, classes)
    while j > i and data[j - 1] != 0x0A and data[j - 1] != 0x0D:
        j -= 1
    return j if j > i else _white(data, i, stop, classes)


@inlined()
def _number(data, i, stop, most, classes):
    """`\\p{N}{1,most}` whose first number ends at i; most 0: no limit."""
    n = 1
    while i < stop and (most == 0 or n < most):
        k, w = _class(data, i, classes)
        if k != NUMBER:
            break
        i += w
        n += 1
    return i


@compiled()
def _contraction(data, i, stop, fold):
    """End of 's 't 're 've 'm 'll 'd at i (an apostrophe), or i. fold: any case, and U+017F as s."""
    if i + 1 >= stop:
        return i
    a = data[i + 1]
    if fold and a == 0xC5 and i + 2 < stop and data[i + 2] == 0xBF:
        return i + 3
    b = data[i + 2] if i + 2 < stop else np.uint8(0)
    if fold:
        if 65 <= a <= 90:
            a |= np.uint8(32)
        if 65 <= b <= 90:
            b |= np.uint8(32)
    if a == 0x73 or a == 0x74 or a == 0x6D or a == 0x64:
        return i + 2
    if (a == 0x72 and b == 0x65) or (a == 0x76 and b == 0x65) or (a == 0x6C and b == 0x6C):
        return i + 3
    return i


@inlined()
def gpt2(data, i, stop, classes):
    """End of the word at i: `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`."""
    if data[i] == 0x27:
        j = _contraction(data, i, stop, False)
        if j > i:
            return j
    k, w = _class(data, i, classes)
    if k != SPACE:
        return _run(data, i + w, stop, k, classes)
    if data[i] == 0x20 and i + 1 < stop:
        k, w = _class(data, i + 1, classes)
        if k != SPACE:
            return _run(data, i + 1 + w, stop, k, classes)
    return _white(data, i, stop, classes)


@inlined()
def cl100k(data, i, stop, classes, digits):
    """End of the word at i: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,digits}|
    ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+` (Qwen: digits 1, Llama-3 and cl100k: 3)."""
    b = data[i]
    if b == 0x27:
        j = _contraction(data, i, stop, True)
        if j > i:
            return j
    k, w = _class(data, i, classes)
    if k == LETTER:
        return _run(data, i + w, stop, LETTER, classes)
    if k == NUMBER:
        return _number(data, i + w, stop, digits, classes)
    if b != 0x0A and b != 0x0D and i + w < stop:
        k2, w2 = _class(data, i + w, classes)
        if k2 == LETTER:
            return _run(data, i + w + w2, stop, LETTER, classes)
    j = i
    if k == SPACE and b == 0x20 and i + 1 < stop:
        k2, _ = _class(data, i + 1, classes)
        if k2 == OTHER:
            k = OTHER
            j = i + 1
    if k == OTHER:
        j = _run(data, j, stop, OTHER, classes)
        while j < stop and (data[j] == 0x0A or data[j] == 0x0D):
            j += 1
        return j
    return _lines(data, i, stop, classes)


@compiled()
def _capitalized(data, i, stop, classes):
    """End of `[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+` at i, or i if it does not match.

    The first part takes what it can; if no lower case follows, it gives back up to its last letter without case.
    """
    last = i
    while i < stop:
        k, w = _class(data, i, classes)
        if k == LOWER:
            while i < stop and k in (LOWER, LETTER, MARK):
                i += w
                if i < stop:
                    k, w = _class(data, i, classes)
            return i
        if k != UPPER and k != LETTER and k != MARK:
            break
        i += w
        if k != UPPER:
            last = i
    return last


@compiled()
def o200k(data, i, stop, classes, digits, contractions):
    """End of the word at i: `[^\\r\\n\\p{L}\\p{N}]?U*L+C?|[^\\r\\n\\p{L}\\p{N}]?U+L*C?|\\p{N}{1,digits}|
    ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`, with U and L as in _capitalized, C a contraction."""
    b = data[i]
    k, w = _class(data, i, classes)
    if k == NUMBER:
        return _number(data, i + w, stop, digits, classes)
    letter = k in (LETTER, UPPER, LOWER)
    end = i
    if letter:
        end = _capitalized(data, i, stop, classes)
        if end == i:
            end = _run(data, i, stop, UPPER, classes)
    elif b != 0x0A and b != 0x0D:
        end = _capitalized(data, i + w, stop, classes)
        if end == i + w:
            end = i + w if k == MARK else _run(data, i + w, stop, UPPER, classes)
            if k != MARK and end == i + w:
                end = i
    if end > i:
        if contractions and end < stop and data[end] == 0x27:
            return _contraction(data, end, stop, True)
        return end
    j = i
    if k == SPACE and b == 0x20 and i + 1 < stop:
        k2, _ = _class(data, i + 1, classes)
        if k2 in (OTHER, MARK):
            k = OTHER
            j = i + 1
    if k in (OTHER, MARK):
        while j < stop:
            k, w = _class(data, j, classes)
            if k != OTHER and k != MARK:
                break
            j += w
        while j < stop and (data[j] == 0x0A or data[j] == 0x0D or data[j] == 0x2F):
            j += 1
        return j
    return _lines(data, i, stop, classes)


@inlined()
def _within(data, i, stop, flag, classes):
    """Kind and width of the character at i; (-1, 0) at the end of the piece that the first two splits leave."""
    if i >= stop:
        return np.int64(-1), 0
    k, w = _class(data, i, classes)
    kind = np.int64(k & KIND)
    if (k & CJK) != flag or kind == NUMBER:
        return np.int64(-1), 0
    return kind, w


@inlined()
def _letters(data, i, stop, flag, classes):
    """End of `[\\p{L}\\p{M}]*` at i."""
    k, w = _within(data, i, stop, flag, classes)
    while k in (LETTER, MARK):
        i += w
        k, w = _within(data, i, stop, flag, classes)
    return i


@inlined()
def _is_ascii_letter(b):
    return 65 <= (b & 0xDF) <= 90


@compiled()
def deepseek(data, i, stop, classes):
    """End of the word at i: `\\p{N}{1,3}`; else, in a run of the characters of `[一-龥぀-ゟ゠-ヿ]`, or of others, of
    `P[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|
    \\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`, with P the ASCII characters of \\p{P} and \\p{S}; or what lies between such."""
    b = data[i]
    k, w = _class(data, i, classes)
    if k == NUMBER:
        return _number(data, i + w, stop, 3, classes)
    flag = k & CJK
    kind = np.int64(k & KIND)
    following, width = _within(data, i + w, stop, flag, classes)
    if kind == SYMBOL and b < 0x80 and following >= 0 and data[i + w] < 0x80 and _is_ascii_letter(data[i + w]):
        i += w
        while i < stop and data[i] < 0x80 and _is_ascii_letter(data[i]):
            i += 1
        return i
    if kind in (LETTER, MARK):
        return _letters(data, i, stop, flag, classes)
    if kind != SYMBOL and b != 0x0A and b != 0x0D and following in (LETTER, MARK):
        return _letters(data, i + w, stop, flag, classes)
    if kind == SYMBOL or (b == 0x20 and following == SYMBOL):
        if kind != SYMBOL:
            i += w
        kind, w = _within(data, i, stop, flag, classes)
        while kind == SYMBOL:
            i += w
            kind, w = _within(data, i, stop, flag, classes)
        while kind == SPACE and (data[i] == 0x0A or data[i] == 0x0D):
            i += w
            kind, w = _within(data, i, stop, flag, classes)
        return i
    if kind == SPACE:
        last, after_newline, end = i, -1, i
        while kind == SPACE:
            last = end
            end += w
            if data[end - 1] == 0x0A or data[end - 1] == 0x0D:
                after_newline = end
            kind, w = _within(data, end, stop, flag, classes)
        if after_newline >= 0:
            return after_newline
        return end if kind < 0 or last == i else last
    while True:  # what no alternative matches, up to where one does
        i += w
        kind, w = following, width
        if kind != OTHER:
            return i
        following, width = _within(data, i + w, stop, flag, classes)
        if following in (LETTER, MARK):
            return i
