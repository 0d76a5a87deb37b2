"""Every tokenizer, what is known of it, and compact ones made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from tests.conftest import SHARED
from tests.tokenizers.helpers import FIRST, KERNELS, LIBRARY_ONLY, MATCHING, REAL, TRAINED, TRICKY, Cut, Small, counted
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.families.matching import Matching
from tinydata.tokenizers.open import open_tokenizer
from tinydata.verbs.compact.prune import kept, protected, removal_order

EVERY = (*TRAINED, *REAL)
KINDS = {
    "merging": [n for n in EVERY if n not in MATCHING],
    "matching_tok": MATCHING,
    "by_words": [n for n in EVERY if n not in LIBRARY_ONLY],
    "kernels": KERNELS,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`tok` is each tokenizer, the fixtures of KINDS each of that kind; `small` three sizes or one of each.

    How files are written and read again depends on the family, hardly on the size: one of each family is cut
    down to three sizes, all others to one. What transformers reads needs no second size.
    """
    names = [n for n in EVERY if all(n in KINDS[f] for f in KINDS if f in metafunc.fixturenames)]
    if "small" in metafunc.fixturenames:
        more = () if "auto" in metafunc.fixturenames else ("half", "smallest")
        rows = [(n, size) for n in names for size in ("third", *(more if n in FIRST else ()))]
        metafunc.parametrize(("tok", "small"), rows, indirect=True, scope="session")
    elif "tok" in metafunc.fixturenames:
        metafunc.parametrize("tok", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def opened(request: pytest.FixtureRequest) -> Callable[[str], Tokenizer]:
    """name -> that tokenizer, the same each time."""

    @cache
    def of(name: str) -> Tokenizer:
        if name in TRAINED:
            family, folder = TRAINED[name]
            return open_tokenizer(str(request.getfixturevalue(family) / folder))
        return open_tokenizer(str(request.getfixturevalue("shared") / REAL[name]))

    return of


@pytest.fixture(scope="session")
def tok(request: pytest.FixtureRequest, opened: Callable[[str], Tokenizer]) -> Tokenizer:
    return opened(request.param)


@pytest.fixture
def merging(tok: Tokenizer) -> Tokenizer:
    assert not isinstance(tok, Matching)
    return tok


@pytest.fixture
def matching_tok(tok: Tokenizer) -> Tokenizer:
    assert isinstance(tok, Matching)
    return tok


@pytest.fixture
def by_words(tok: Tokenizer) -> Tokenizer:
    assert tok.cutter is not None
    return tok


@pytest.fixture
def kernels(tok: Tokenizer) -> Tokenizer:
    return tok


@pytest.fixture(scope="session")
def texts(documents: list[str]) -> list[str]:
    """What is encoded and decoded again, by each tokenizer and each compact one."""
    return [*TRICKY, *documents[::2]]


@pytest.fixture(scope="session")
def rows(tok: Tokenizer, texts: list[str], rows_of: Callable[[Tokenizer], list[list[int]]]) -> list[list[int]]:
    """The library's ids of `texts`."""
    return rows_of(tok)


@pytest.fixture(scope="session")
def rows_of(texts: list[str]) -> Callable[[Tokenizer], list[list[int]]]:
    return cache(lambda tok: tok.encode(texts))


@pytest.fixture(scope="session")
def documents(text: list[str]) -> list[str]:
    """The text of conftest, and beginnings of documents of each real corpus where they are."""
    real = []
    for file in sorted((SHARED / "corpora").glob("*.jsonl.zst")):
        with pa.CompressedInputStream(pa.OSFile(str(file)), "zstd") as f:
            lines = f.read(1 << 17).split(b"\n")[:-1]
        real += [json.loads(line)["text"][:1500] for line in lines[:10]]
    return text + real


@pytest.fixture(scope="session")
def cut_of(documents: list[str]) -> Callable[[Tokenizer], Cut]:
    """tokenizer -> the order of removal by all documents, the same each time."""

    @cache
    def of(tok: Tokenizer) -> Cut:
        train = counted(tok, documents, bits=14)[0]
        tree = tok.tree()
        locked = protected(tok, tree, train[None])
        return Cut(tree, train, locked, removal_order(tok, tree, train, locked))

    return of


@pytest.fixture(scope="session")
def cut(tok: Tokenizer, cut_of: Callable[[Tokenizer], Cut]) -> Cut:
    return cut_of(tok)


@pytest.fixture(scope="session")
def small(tok: Tokenizer, cut: Cut, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    floor = tok.size - len(cut.order.removed)
    size = {"half": tok.size // 2, "third": tok.size // 3, "smallest": floor}[request.param]
    keep = np.flatnonzero(kept(tok, cut.order, max(size, floor)))
    made = tok.subset(keep)
    path = tmp_path_factory.mktemp("small")
    for name, content in made.written().items():
        (path / name).write_bytes(content)
    return Small(made, keep, path)
