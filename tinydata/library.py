"""The verbs as functions: what the command line does, with the same defaults, for a script or a notebook.

Each verb that writes returns a small object with its directory (`path`) and its manifest (`manifest`), which a
notebook displays; tables are pyarrow tables. A function that takes the result of another verb also accepts the
path of its directory. Repeating a call that was killed continues it; repeating one that is complete returns its
result. If the directory holds something else, the call raises TinydataError, and `force=True` replaces the directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from tinydata.core.errors import UpToDate
from tinydata.core.location import Location, read_table
from tinydata.core.output import read_manifest
from tinydata.core.progress import progress
from tinydata.core.text import table as text_table
from tinydata.engines.connect import connect
from tinydata.formats.base import Wanted
from tinydata.tokenizers.open import open_tokenizer

Path = str | os.PathLike[str]
Column = str | Sequence[str]  # of all paths of a corpus, or one for each


@dataclass(frozen=True, repr=False)
class Artifact:
    """A directory that a verb wrote, with its manifest: command, options, inputs and results."""

    path: str
    manifest: dict[str, Any] = field(compare=False)

    def __fspath__(self) -> str:
        return self.path

    def read(self, name: str) -> pa.Table:
        """A Parquet table of the directory by its name, "counts" for counts.parquet."""
        return read_table(Location.of(self.path) / f"{name}.parquet")

    def _facts(self) -> dict[str, Any]:
        totals = self.manifest.get("totals")
        return dict(totals) if isinstance(totals, Mapping) else {}

    def __repr__(self) -> str:
        rows = [{"name": k, "value": v} for k, v in self._facts().items() if not isinstance(v, dict | list)]
        title = f"{type(self).__name__} at {self.path}"
        return "\n".join([title, text_table(rows, {"name": "", "value": ""})] if rows else [title])

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"


class Counts(Artifact):
    """The output of `count`: `counts` (token_id, domain, count, heldout), `domains`, and the held-out documents."""

    @property
    def counts(self) -> pa.Table:
        return self.read("counts")

    @property
    def domains(self) -> pa.Table:
        return self.read("domains")


class Vocabulary(Artifact):
    """The output of `compact`: a tokenizer that other libraries load, and the id map from the big one."""

    @property
    def tradeoff(self) -> dict[str, Any]:
        """What the vocabulary saves and what it costs: ids, parameters, inflation of held-out text."""
        return dict(self.manifest["trade"])

    @property
    def tokenizer(self) -> Any:
        """The compact tokenizer, opened."""
        return open_tokenizer(self.path)

    @property
    def idmap(self) -> pa.Table:
        """A row per old id: token_id, whether it is kept, and the new ids that replace it."""
        return self.read("idmap")

    def _facts(self) -> dict[str, Any]:
        trade = self.tradeoff
        heldout = trade["heldout"] or {}
        return {
            "ids before": trade["ids"]["before"],
            "ids after": trade["ids"]["after"],
            "inflation of held-out text": f"{heldout['inflation']:+.2%}" if heldout else "not measured",
            "coverage": f"{trade['coverage']:.2%}",
        }


class Shards(Artifact):
    """The output of `encode`: token files that a trainer reads."""


class Model(Artifact):
    """The output of `slice`: a Hugging Face model directory with the rows of the kept tokens."""


class Scores(Artifact):
    """The output of `score`: the loss of every sequence, in nats per token."""

    @property
    def scores(self) -> pa.Table:
        return self.read("scores")


class Round(Artifact):
    """The output of `resample`: the sequences of the next round."""


def count(
    corpus: Path | Sequence[Path],
    tokenizer: Path,
    out: Path = "counts",
    *,
    text_column: Column = "",
    ids_column: Column = "",
    domain_column: Column = "",
    id_column: Column = "",
    dtype: Column = "",
    read_as_text: Column = "",
    heldout: float | None = None,
    max_bad: float = 0.001,
    json_freq: bool = False,
    engine: Any = "local",
    workers: int = 0,
    partitions: int = 0,
    force: bool = False,
) -> Counts:
    """Count how often each token id occurs, per domain.

    corpus: files, directories or patterns, of text or token ids. tokenizer: directory or file of the big tokenizer.
    The columns default to the usual names; dtype is the type of token ids in files that do not declare it; read_as_text
    names files of which each is one document, "*.md,*.py". Each of these is one value, or a list of one for each path
    of the corpus. heldout: share of the documents to set aside, chosen by a
    hash of their id; None: 0.01, and up to 0.1 for a corpus of less than 40 MB. max_bad: share of the documents that
    may be unusable. engine: "local", "spark", a SparkSession, or an engine; workers: processes, 0 for one per core.

    >>> counts = td.count("corpus.jsonl", "tokenizer.json", "counts")
    >>> counts.manifest["totals"]["documents"]
    60
    """
    from tinydata.formats.corpus import plan
    from tinydata.tokenizers.open import loaded, read_tokenizer
    from tinydata.tokenizers.special_tokens import id_facts
    from tinydata.verbs.count import verb
    from tinydata.verbs.count.plan import Settings, heldout_share

    paths, big = _paths(corpus), _path(tokenizer)
    wanted = _wanted(text_column, ids_column, domain_column, id_column, dtype, read_as_text)
    found = plan(paths, wanted._replace(**id_facts(loaded(read_tokenizer(big), big))))
    settings = Settings(heldout_share(found) if heldout is None else heldout, wanted, max_bad)
    with connect(engine, workers) as running, progress("count", sum(s.bytes for s in found.splits)) as advance:
        manifest = _result(
            verb.count, paths, big, _path(out), running, settings,
            force=force, json_freq=json_freq, partitions=partitions, corpus_plan=found, progress=advance,
        )  # fmt: skip
    return Counts(_path(out), manifest)


def compact(
    counts: Path | Counts,
    out: Path = "vocab",
    *,
    vocab: int | None = None,
    coverage: float | None = None,
    max_inflation: float | None = None,
    tokenizer: Path = "",
    multiple_of: int = 1,
    method: str = "leaf",
    min_per_domain: int = 0,
    keep_tokens: Sequence[str] = (),
    drop_tokens: Sequence[str] = (),
    adapt: bool = False,
    d_model: int = 2048,
    curve: bool = False,
    force: bool = False,
) -> Vocabulary:
    """Build the compact vocabulary.

    Exactly one of three arguments determines its size: vocab (number of ids), coverage (share of the corpus's tokens
    whose id is kept) or max_inflation (0.02: held-out text may become 2 % longer). tokenizer: the big tokenizer, by
    default the one that `count` used. adapt: learn merges from the corpus, which is read again. d_model: model width,
    used to report the parameters saved. drop_tokens: special or added tokens to remove, as text or as patterns such as
    "<unused*>". curve: also measure other sizes and record them in the manifest.

    >>> vocabulary = td.compact(counts, "vocab", vocab=800)
    >>> vocabulary.tradeoff["dead_pieces"]["after"]
    0
    """
    from tinydata.core.errors import USAGE, TinydataError
    from tinydata.verbs.compact import plan, verb

    if [vocab, coverage, max_inflation].count(None) != 2 or (adapt and (not vocab or method != "leaf")):
        raise TinydataError(
            "the size of the vocabulary is not determined",
            where="tinydata.compact",
            fix="pass exactly one of vocab, coverage and max_inflation; adapt goes with vocab and method='leaf'",
            code=USAGE,
        )
    opened = plan.open_counts(_path(counts))
    big = _path(tokenizer) or opened.manifest["tokenizer"]["path"]
    goal = plan.Goal(
        vocab or 0, coverage or 0.0, -1.0 if max_inflation is None else max_inflation,
        multiple_of, method, min_per_domain, tuple(keep_tokens), adapt, tuple(drop_tokens),
    )  # fmt: skip
    choice = plan.choose(opened, big, goal, d_model=d_model)
    points = plan.curve(choice, opened, d_model) if curve else None
    manifest = _result(
        verb.compact, _path(counts), big, _path(out), goal, d_model=d_model, force=force, choice=choice, points=points
    )
    return Vocabulary(_path(out), manifest)


def encode(
    corpus: Path | Shards | Sequence[Path],
    vocab: Path | Vocabulary,
    out: Path = "shards",
    *,
    to: str = "megatron",
    tokenizer: Path = "",
    bos: str = "",
    eos: str = "",
    shard_tokens: int = 1 << 27,
    shuffle_seed: int | None = None,
    text_column: Column = "",
    ids_column: Column = "",
    domain_column: Column = "",
    id_column: Column = "",
    dtype: Column = "",
    read_as_text: Column = "",
    max_bad: float = 0.001,
    engine: Any = "local",
    workers: int = 0,
    partitions: int = 0,
    force: bool = False,
) -> Shards:
    """Turn a corpus into shards of token ids.

    corpus: text, or ids of the big tokenizer, which are rewritten without the text. vocab: the output of `compact`, or
    any tokenizer. to: "megatron", "parquet", "internevo" or "llmc". tokenizer: the tokenizer of the ids, if it is no
    longer at the path that the vocabulary records. bos, eos: a token, "none", or "" for what the tokenizer declares.
    shuffle_seed: puts all documents into one random order, determined by a hash; None keeps the order of the corpus.

    >>> td.encode("corpus.jsonl", vocabulary, "shards").manifest["totals"]["documents"]
    60
    """
    from tinydata.verbs.encode import verb
    from tinydata.verbs.encode.plan import Settings, with_id_facts

    small, big = _path(vocab), _path(tokenizer)
    wanted = _wanted(text_column, ids_column, domain_column, id_column, dtype, read_as_text)
    wanted = with_id_facts(wanted, small, big)
    seed = -1 if shuffle_seed is None else shuffle_seed
    settings = Settings(wanted, to, shard_tokens, seed, bos, eos, max_bad)
    with connect(engine, workers) as running:
        manifest = _result(
            verb.encode, _paths(corpus), small, _path(out), running, settings,
            tokenizer=big, force=force, partitions=partitions, stage=progress,
        )  # fmt: skip
    return Shards(_path(out), manifest)


def slice(model: Path, vocab: Path | Vocabulary, out: Path, *, multiple_of: int = 1, force: bool = False) -> Model:
    """Fit a Hugging Face model to a vocabulary: embedding and head keep the rows of the kept tokens.

    Rows are copied from file to file; nothing is loaded. multiple_of: round the number of rows up to a multiple.
    """
    from tinydata.verbs.slice.verb import slice_model
    from tinydata.verbs.slice.vocabulary_rows import Options

    options = Options(multiple_of=multiple_of)
    manifest = _result(slice_model, _path(model), _path(vocab), _path(out), options, force=force)
    return Model(_path(out), manifest)


def score(
    shards: Path | Shards | Round,
    model: Path = "",
    out: Path = "scores",
    *,
    losses: Path = "",
    seq_len: int = 0,
    rows: int = 0,
    base: Path = "",
    device: str = "auto",
    scorer: str = "trainer.scorer:load",
    engine: Any = "local",
    workers: int = 0,
    partitions: int = 0,
    force: bool = False,
) -> Scores:
    """Compute the loss of every sequence under a frozen model, in nats per token.

    model: a run, a checkpoint of one, or a Hugging Face directory; or losses: a run that logged its losses, which are
    then read and not computed. seq_len: tokens per sequence, 0 for the model's length. rows: sequences in one forward
    pass, 0 for as many as the model's size allows. base: the shards of a round, if they are no longer at their
    recorded path. device: "cpu", "cuda:1", or "auto": one GPU per worker if there are any.
    """
    from tinydata.verbs.score import verb
    from tinydata.verbs.score.plan import Settings
    from tinydata.verbs.score.scorer import devices

    settings = Settings(_path(model), _path(losses), scorer, seq_len, rows, _path(base), device)
    gpus = devices(scorer) if model and device == "auto" and engine == "local" else []
    with connect(engine, workers or len(gpus), pandas=True) as running:
        ways: dict[str, Any] = {"force": force, "partitions": partitions, "stage": partial(progress, unit="tokens")}
        manifest = _result(lambda: verb.score(_path(shards), _path(out), running, settings, **ways).manifest)
    return Scores(_path(out), manifest)


def resample(
    scores: Path | Scores,
    out: Path,
    *,
    keep: float = 0.5,
    preset: str = "guarded",
    exclude: Sequence[str] = (),
    reference: Path | Scores = "",
    data: Path | Shards = "",
    seed: int = 0,
    engine: Any = "local",
    workers: int = 0,
    partitions: int = 0,
    force: bool = False,
    **options: Any,
) -> Round:
    """Draw the next round: the harder a sequence, the more likely it is kept.

    keep: share of the sequences that have a loss. preset: "guarded" or "paper". exclude: guards as "NAME" or
    "NAME=VALUE", or "none". reference: SCORES of a reference model, beyond which losses count. data: the shards that
    were scored, if they are no longer at their recorded path. options: `tokens`, `unit`, `batch_tokens`,
    `temperature`, `clip`, `zscore`, `floor`, `stratify`, `max_repeats`, as `tinydata resample --help` describes them.
    """
    from tinydata.verbs.resample import verb
    from tinydata.verbs.resample.plan import settings

    chosen = settings(preset, tuple(exclude), keep=keep, seed=seed, **options)
    with connect(engine, workers) as running, running.together():
        manifest = _result(
            verb.resample, _path(scores), _path(out), running, chosen,
            reference=_path(reference), data=_path(data), force=force, partitions=partitions, stage=progress,
        )  # fmt: skip
    return Round(_path(out), manifest)


def report(*dirs: Path | Artifact, out: Path = "report.html") -> str:
    """Make one offline HTML page of counts, vocabularies, shards, scores and rounds; returns its path."""
    from tinydata.pages.page import report as write_page

    return str(write_page([_path(d) for d in dirs], _path(out))["report"])


def read_counts(path: Path) -> Counts:
    """Open the output of an earlier `count`."""
    return Counts(_path(path), read_manifest(_path(path), "count"))


def lineage(*paths: Path | Artifact) -> str:
    """Describe the inputs of each directory, and the inputs of those, down to the corpus."""
    from tinydata.artifacts.lineage import lineage as trace

    return trace([_path(p) for p in paths])[1]


def _result(verb: Callable[..., dict[str, Any]], *arguments: Any, **options: Any) -> dict[str, Any]:
    """The manifest that a verb returns, or that of an output which is complete already."""
    try:
        return verb(*arguments, **options)
    except UpToDate as done:
        return done.manifest


def _path(path: Path) -> str:
    return os.fspath(path)


def _wanted(text: Column, ids: Column, domain: Column, doc_id: Column, dtype: Column, as_text: Column) -> Wanted:
    columns = {"text_column": text, "ids_column": ids, "domain_column": domain, "doc_id_column": doc_id}
    return Wanted.from_given({**columns, "dtype": dtype, "read_as_text": as_text})


def _paths(paths: Path | Sequence[Path]) -> list[str]:
    return [_path(paths)] if isinstance(paths, str | os.PathLike) else [_path(p) for p in paths]
