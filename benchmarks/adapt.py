"""`tinydata compact --adapt`: how short its vocabularies spell held-out text, against pruning alone and from scratch.

Inflation is against the big tokenizer, on documents that nothing was learned from. From scratch means: the
same learner on the same words, begun with bytes and single characters, pruned to the size; the `tokenizers`
library's own trainer is run beside it once, on a sample, since a figure to beat must not be one of our making.
Of other domains nothing is counted or learned, only measured: that is what text unlike the corpus pays.
Goal: two thirds of the gap between pruning alone and from scratch.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.place import SHARED, Place
from benchmarks.table import Peak, Row

TOKENIZERS = {
    "InternLM": ("sp_bpe/internlm_103168", (48_000,)),
    "OLMo": ("bytebpe/olmo_gpt_neox_v1_5", (33_333, 16_667)),
    "GPT-2": ("bytebpe/gpt2_50257", (33_333, 16_667)),
}
OTHER = ("de_gesetze", "ko_visualstudio_docs")  # left out of the corpus
SAMPLE = (20, 16_000)  # every n-th document, ids: what the library's trainer gets


def rows(place: Place) -> tuple[list[Row], list[Peak]]:
    if not (SHARED / "corpora").is_dir():
        return [Row("adapt", note=f"skipped: no {SHARED.parent.name}/data/corpora beside the project")], []
    out: list[Row] = []
    peak = 0
    for name, (path, sizes) in TOKENIZERS.items():
        for what, left_out in (("", []), (f", without {' and '.join(OTHER)}", list(OTHER))):
            some = list(sizes[:1] if left_out else sizes)
            run = process.call(
                "benchmarks.adapt:measured", place.folder, str(SHARED / "tokenizers" / path), some, left_out
            )
            peak = max(peak, run.peak)
            for made in run.value:
                out += _rows(f"{name} to {made['size']:,}", what, made)
    same = process.call("benchmarks.adapt:library", place.folder, str(SHARED / "tokenizers" / TOKENIZERS["GPT-2"][0]))
    ours, theirs = same.value
    title = f"GPT-2's words from scratch, {SAMPLE[1]:,} ids, {100 / SAMPLE[0]:.0f} % of the text / tokenizers"
    out.append(Row(title, ours, theirs, "tokens", ours / theirs, "<= 1.001"))
    return out, [Peak("compact --adapt", peak)]


def _rows(name: str, what: str, made: dict[str, Any]) -> list[Row]:
    if what:
        return [
            Row(f"{name}, {d} not counted / pruned", 100 * adapted, 100 * pruned, "%", note=f"{adapted - pruned:+.2%}")
            for d, (pruned, adapted) in made["other"].items()
        ]
    pruned, adapted, scratch = (made[k] for k in ("pruned", "adapted", "scratch"))
    share = 100 * (pruned - adapted) / (pruned - scratch)
    note = f"{pruned:+.2%} pruned, {adapted:+.2%} adapted, {scratch:+.2%} scratch; {made['learned']:,} learned, "
    note += f"worst domain {made['worst']:+.2%} in {made['attempts']} attempts, {made['seconds']:.0f} s"
    return [Row(f"{name}: share of the gap", share, unit="%", goal=">= 66.7", note=note)]


# -- in a process of its own ------------------------------------------------------------------


def measured(folder: str, tok: str, sizes: list[int], left_out: list[str]) -> list[dict[str, Any]]:
    """Inflation of both vocabularies of each size on held-out text, of one from scratch too, or on text left out."""
    from tinydata.verbs.compact.plan import Goal, choose, open_counts

    opened = open_counts(_counted(folder, tok, _files(left_out)))
    out = []
    for size in sizes:
        began = time.perf_counter()
        choice = choose(opened, tok, Goal(vocab=size, adapt=True))
        seconds = time.perf_counter() - began
        assert choice.adapted
        facts = choice.adapted.facts["heldout"]
        made = {
            "size": size,
            "seconds": seconds,
            "learned": choice.adapted.facts["learned"],
            "pruned": facts["inflation_pruned_only"],
            "adapted": facts["inflation"],
            "worst": facts["worst_domain"]["against_pruned_only"],
            "attempts": facts["guard"]["attempts"],
        }
        if left_out:
            plain = choose(opened, tok, Goal(vocab=size)).small
            made["other"] = {d: _elsewhere(d, choice.big, plain, choice.small) for d in left_out}
        out.append(made)
    if not left_out:
        for made, scratch in zip(out, _scratch(opened, choice.big, sizes), strict=True):
            made["scratch"] = scratch
    return out


def _files(left_out: list[str]) -> list[str]:
    found = sorted((SHARED / "corpora").glob("*.jsonl.zst"))
    return [str(f) for f in found if f.name.split(".")[0] not in left_out]


def _counted(folder: str, tok: str, files: list[str]) -> str:
    from tinydata.engines.local import LocalEngine
    from tinydata.verbs.count.verb import count

    out = str(Path(folder, f"{Path(tok).name}-{len(files)}"))
    count(files, tok, out, LocalEngine(2))
    return out


def _elsewhere(domain: str, big: Any, *small: Any) -> list[float]:
    """-> inflation of each vocabulary on all text of a domain."""
    from tinydata.verbs.compact.tradeoff import Heldout

    held = Heldout(_texts(domain), big)
    return [float(held.count(s).sum() / held.tokens.sum() - 1) for s in small]


def _texts(domain: str, step: int = 1) -> Any:
    """Every n-th document of a file -> table of domain and text."""
    import pyarrow as pa

    with pa.input_stream(str(SHARED / "corpora" / f"{domain}.jsonl.zst"), compression="zstd") as f:
        texts = [json.loads(line)["text"] for line in f.read().decode().splitlines()[::step]]
    return pa.table({"domain": [domain] * len(texts), "text": pa.array(texts, pa.string())})


def _scratch(opened: Any, big: Any, sizes: list[int]) -> list[float]:
    """Inflation on the held-out text of vocabularies that are learned from bytes and characters on."""
    from tinydata.verbs.compact.corpus_words import corpus_words
    from tinydata.verbs.compact.tradeoff import Heldout

    words, weights = corpus_words(opened.manifest, opened.domain_table, big, big)
    held = Heldout(opened.heldout, big)
    made = _learned(big, words, weights, sizes)
    return [float(held.count(m).sum() / held.tokens.sum() - 1) for m in made]


def _learned(big: Any, words: Any, weights: Any, sizes: list[int]) -> list[Any]:
    """As many merges as the most ids, then to each size what is used least goes: rare characters too.

    What may merge with what is as in the big tokenizer.
    """
    import numpy as np

    from tinydata.tokenizers.base import places
    from tinydata.tokenizers.families.merging import build_tree
    from tinydata.verbs.compact.bpe_training import learn
    from tinydata.verbs.compact.prune import kept, removal_order
    from tinydata.verbs.compact.training_text import TrainingSymbols, merges_are_implied, spelled, symbols_of, tally

    implied = merges_are_implied(big)
    single = np.array([len(p.decode("utf-8", "ignore")) == 1 for p in big.pieces])
    first = np.flatnonzero(~big.removable() | (single & implied))
    base = big.subset(first)
    symbols = TrainingSymbols(*(a[big.order(first)] for a in symbols_of(big)))
    count = words.weighted(weights)
    ids, word = spelled(words, base)
    found = learn(ids, word, count, symbols, np.ones(max(sizes), np.int64), implied)
    longer = base.extended(list(zip(found.left.tolist(), found.right.tolist(), strict=True)))
    place = places(base, len(found.left))
    seen = np.zeros(longer.size, np.int64)
    seen[place] = tally(ids, word, count, len(place))
    order = removal_order(longer, build_tree(longer), seen, ~longer.removable())
    return [longer.subset(np.flatnonzero(kept(longer, order, size))) for size in sizes]


def library(folder: str, tok: str) -> list[int]:
    """Both trainers on every n-th document -> tokens of these documents under ours and the library's."""
    import numpy as np
    import pyarrow as pa
    from tokenizers import Tokenizer, models, trainers

    from tinydata.tokenizers.open import open_tokenizer
    from tinydata.verbs.compact.word_collector import WordCollector

    step, size = SAMPLE
    big = open_tokenizer(tok)
    tables = [_texts(f.name.split(".")[0], step) for f in sorted((SHARED / "corpora").glob("*.jsonl.zst"))]
    texts = pa.concat_tables(tables)["text"].combine_chunks()
    texts = texts.chunk(0) if isinstance(texts, pa.ChunkedArray) else texts
    collector = WordCollector(big)
    collector.add(texts, np.zeros(len(texts), np.int32))
    ours = _learned(big, collector.words(), np.ones(1), [size])[0]
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = Tokenizer.from_str(json.dumps(big.config)).pre_tokenizer
    alphabet = [t for t in big.config["model"]["vocab"] if len(t) == 1]
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet)
    theirs.train_from_iterator(texts.to_pylist(), trainer)
    found = [sum(map(len, ours.encode(texts.to_pylist())))]
    found.append(sum(len(e.ids) for e in theirs.encode_batch(texts.to_pylist(), add_special_tokens=False)))
    return found
