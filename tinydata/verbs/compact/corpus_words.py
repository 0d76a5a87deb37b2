"""counted corpus, read again -> distinct words of a sample of it, by domain: what `compact --adapt` learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tinydata.core.documents import masks_by_sign
from tinydata.core.errors import UNREADABLE, TinydataError
from tinydata.core.hashing import held_out
from tinydata.core.kernels import buffers
from tinydata.formats.base import Split, Wanted
from tinydata.formats.corpus import ignore_bad, plan, read
from tinydata.tokenizers.base import Tokenizer
from tinydata.tokenizers.decoder import decoder
from tinydata.tokenizers.special_tokens import id_facts
from tinydata.verbs.compact.word_collector import WordCollector, Words

SAMPLE_BYTES = 256 << 20  # of text that is learned from
STRETCH_BYTES = 4 << 20  # least that is read of a split


class CorpusWords(NamedTuple):
    """The words of a sample of the corpus; a word of domain d stands for weights[d] words of the corpus."""

    words: Words
    weights: np.ndarray  # float64[domains]


class _Documents(NamedTuple):
    """Documents that are not held out, and of which the domain is known."""

    texts: pa.StringArray
    domain: np.ndarray  # int32[documents]

    @property
    def sizes(self) -> np.ndarray:
        """int64[documents], bytes."""
        return np.diff(buffers(self.texts)[0])


def corpus_words(manifest: dict[str, Any], domains: pa.Table, big: Tokenizer, small: Tokenizer) -> CorpusWords:
    """Manifest and DOMAINS of the counts -> CorpusWords, cut by the pre-tokenizer of `small`.

    If the corpus is larger than SAMPLE_BYTES, only the beginning of each split is used. Raises TinydataError if the
    corpus cannot be read any more, or has no text outside the held-out documents.
    """
    options = manifest["options"]
    wanted = Wanted.from_given(options)._replace(**id_facts(big))
    try:
        splits = plan(options["corpus"], wanted).splits
    except TinydataError as e:
        raise _unreadable_corpus(options["corpus"], e.what) from None
    number = {d: i for i, d in enumerate(domains["domain"].to_pylist())}
    collector = WordCollector(small)
    collector.grow(len(number))
    size = np.zeros(len(number), np.int64)
    for k, split in enumerate(sorted(splits, key=_shuffled)):
        left = SAMPLE_BYTES - int(size.sum())
        if left <= 0:
            break
        share, begun = max(left // (len(splits) - k), STRETCH_BYTES), size.sum()
        for documents in _documents(split, options["heldout"], big, number):
            size += np.bincount(documents.domain, documents.sizes, len(size)).astype(np.int64)
            if len(documents.domain):
                collector.add(*documents)
            if size.sum() - begun >= share:
                break
    train = domains["bytes"].to_numpy() - domains["heldout_bytes"].to_numpy()
    words = collector.words()
    if not len(words):
        raise _unreadable_corpus(options["corpus"], "it contains no text outside the held-out documents")
    return CorpusWords(words, np.maximum(train, 1) / np.maximum(size, 1))


def _shuffled(split: Split) -> bytes:
    return hashlib.blake2b(f"{split.name} {split.start}".encode(), digest_size=8).digest()


def _unreadable_corpus(corpus: list[str], why: str) -> TinydataError:
    return TinydataError(
        f"--adapt learns from the counted corpus, which cannot be read: {why}",
        where=", ".join(corpus),
        fix="run this where the corpus is available under the path it was counted from, or omit --adapt",
        code=UNREADABLE,
    )


def _documents(split: Split, heldout: float, big: Tokenizer, number: dict[str, int]) -> Iterator[_Documents]:
    """Split, held-out share, numbers of the domains -> its documents, batch by batch."""
    for batch in read(split, ignore_bad):
        labels = batch.column("domain")
        numbers = np.array([number.get(d, -1) for d in labels.dictionary.to_pylist()], np.int32)
        domain = numbers[labels.indices.to_numpy()]
        rows = np.flatnonzero(~held_out(batch, heldout) & (domain >= 0))
        if "text" in batch.schema.names:
            yield _Documents(batch.column("text").take(pa.array(rows)), domain[rows])
            continue
        body = batch.column("ids")
        offsets, values = body.offsets.to_numpy().astype(np.int64), body.values.to_numpy()
        ids = values.astype(np.int64)
        wrong = (np.abs(ids) >= big.size) | ((ids < 0) & (not masks_by_sign(batch)))
        outside = np.concatenate([[0], np.cumsum(wrong)])
        rows = rows[outside[offsets[rows + 1]] == outside[offsets[rows]]]
        yield _Documents(decoder(big).texts(values, offsets, rows), domain[rows])
