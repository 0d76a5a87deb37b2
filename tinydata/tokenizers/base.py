"""The one interface of every tokenizer family, and the door to them: `open_tokenizer(path)`.

A tokenizer is data (the files that make it) plus what compaction needs to know: the bytes of
each piece, which pieces may never go, how text may be cut into words, and how words become ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tinydata.errors import UNREADABLE, TinydataError, missing_extra
from tinydata.store import Location, list_files, read_bytes
from tinydata.tokenizers.bpe import Pairs, Symbols
from tinydata.tokenizers.words import Cutter

# What an id is. Only NORMAL pieces may be removed.
NORMAL, CONTROL, BYTE, ADDED = 0, 1, 2, 3

SPACE = "\u2581"  # how SentencePiece, and what is converted from it, writes a blank inside pieces


class Tree(NamedTuple):
    """parts[offsets[i]:offsets[i+1]] = the ids that the tokenizer makes of piece i without piece i.

    Two parts: the pieces it is merged from. One part (itself): nothing to fall back on. Families
    that match have as many parts as spell it, with all other pieces there.
    `reachable[i]` is False for a piece that encoding its own text never produces.
    """

    offsets: np.ndarray  # int64[size + 1]
    parts: np.ndarray  # int32[...]
    reachable: np.ndarray  # bool[size]


class Tokenizer(Protocol):
    """ids 0..size-1; `encode` and `decode` are the native library's own."""

    family: str
    files: dict[str, bytes]  # name -> content: what made it, and all that travels to a worker
    size: int
    pieces: list[bytes]  # bytes a token stands for in text; of CONTROL and ADDED: its literal
    kinds: np.ndarray  # uint8[size]
    gap: np.ndarray  # bool[size]: ids that stand for nothing

    @property
    def unk(self) -> int:
        """Id of text that no piece spells; -1: there is none."""

    def __hash__(self) -> int: ...
    def encode(self, texts: list[str]) -> list[list[int]]: ...
    def decode(self, ids: list[int]) -> str: ...
    @property
    def unsafe(self) -> np.ndarray | None:
        """uint8[0x110000], 1: a text with this character must go through `normal`; None: no text must."""

    @property
    def odd(self) -> list[str]:
        """Strings whose documents only `encode` can do."""

    def normal(self, text: str) -> str | None:
        """The text as the cutter wants it, or None if only `encode` can tell what it becomes."""

    @property
    def cutter(self) -> Cutter | None: ...
    @property
    def why_not(self) -> str:
        """Why there is no cutter (empty if there is)."""

    @property
    def symbols(self) -> Symbols:
        """Of a family that merges, as are `pairs`; asked for only there and where there is a cutter."""

    @property
    def pairs(self) -> Pairs: ...
    @property
    def whole_words(self) -> dict[bytes, int]:
        """Words looked up before merging, {bytes: id}, less those that merging gives anyway (ignore_merges)."""

    def tree(self) -> Tree: ...
    def spell(self, pieces: list[bytes]) -> list[np.ndarray]:
        """Bytes of each piece -> int32 ids the tokenizer makes of them, as inside a text."""

    def removable(self) -> np.ndarray:
        """bool[size]: pieces whose text can still be spelled without them."""

    def subset(self, keep: np.ndarray) -> Tokenizer:
        """keep int[n], ascending old ids -> the tokenizer with just these, renumbered.

        New ids follow `order(keep)`; a merge survives if its parts and its result do.
        """

    def order(self, keep: np.ndarray) -> np.ndarray:
        """keep int[n] -> the same old ids in the order of their new ids."""


class Extendable(Tokenizer, Protocol):
    """A family that can be taught more merges."""

    def extended(self, merges: Sequence[tuple[int, int]]) -> Extendable:
        """(left, right) of new merges, to come after all others -> the tokenizer with them.

        Merge k makes the id size + k, which later merges may name; `places` says which id it has
        in the end.
        """


def first_free(tokenizer: Tokenizer) -> int:
    """The id behind the last piece that text is merged from: learned pieces stand there, special tokens behind."""
    return int(np.flatnonzero((tokenizer.kinds == NORMAL) | (tokenizer.kinds == BYTE))[-1]) + 1


def places(tokenizer: Tokenizer, merges: int) -> np.ndarray:
    """int64[size + merges]: id in `extended` of each id, those of the learned merges last."""
    at = first_free(tokenizer)
    old = np.arange(tokenizer.size)
    return np.concatenate([old + merges * (old >= at), at + np.arange(merges)])


def pieces_that_may_go(kinds: np.ndarray, gap: np.ndarray, texts: list[str], fallback: bool) -> np.ndarray:
    """texts: pieces as the vocabulary writes them -> bool[size]: NORMAL ones; single characters only where bytes
    can stand in, ASCII and the blank never."""
    may = (kinds == NORMAL) | gap
    for i in np.flatnonzero(kinds == NORMAL):
        text = texts[i]
        if len(text) == 1 and (not fallback or "\0" < text < "\x80" or text == SPACE):
            may[i] = False
    return may


def fingerprint(tokenizer: Tokenizer) -> str:
    """Hash over (id, piece bytes), kind and family: equal for equal ids, whatever the file format's layout."""
    h = hashlib.blake2b(tokenizer.family.encode(), digest_size=16)
    for i, piece in enumerate(tokenizer.pieces):
        h.update(b"%d %d %d " % (i, tokenizer.kinds[i], len(piece)))
        h.update(piece)
    return h.hexdigest()


_COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
)
_HUB = "hf://"
_HUB_FILES = ("tokenizer*", "*.model", "vocab.*", "merges.txt", "*.tiktoken", *_COMPANIONS)
_MAIN = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
)


def open_tokenizer(path: str) -> Tokenizer:
    """A directory or a file -> Tokenizer.

    Known: `tokenizer.model`, `tokenizer.json`, `vocab.json` beside `merges.txt`, `vocab.txt`, `NAME.tiktoken`,
    and `hf://ORG/NAME`.
    Raises TinydataError for a path that is not there or a family that is not known.
    """
    return load(read_tokenizer(path), path)


def read_tokenizer(path: str) -> dict[str, bytes]:
    """Path -> {name: content} of the files that make the tokenizer, the main one first."""
    where = Location.of(path if not path.startswith(_HUB) else _snapshot(path))
    if where.is_dir():
        names = {f.name: f for f in list_files(where)}
        main = next((n for n in sorted(names) if n.endswith(".tiktoken")), None)
        main = main or next((n for n in _MAIN if n in names), None)
        main = main or next((n for n in sorted(names) if n.endswith(".model")), None)
        if main is None:
            raise _unknown(path, f"the directory holds {', '.join(sorted(names)[:8]) or 'nothing'}")
        if main == "vocab.json" and "merges.txt" not in names:
            raise _no_merges(where)
        beside = ["merges.txt"] if main == "vocab.json" else ["tokenizer.json"]
        wanted = [main, *(n for n in (*beside, *_COMPANIONS) if n in names and n != main)]
        return {n: read_bytes(names[n]) for n in wanted}
    if not where.exists():
        raise TinydataError(
            "there is no tokenizer here",
            where=str(path),
            fix="pass a directory or one of tokenizer.model, tokenizer.json, vocab.json (beside merges.txt)",
            code=UNREADABLE,
        )
    files = {where.name: read_bytes(where)}
    if where.name.endswith(("vocab.json", "encoder.json")):
        beside_it = where.parent / "merges.txt"
        if not beside_it.exists():
            raise _no_merges(where.parent)
        files["merges.txt"] = read_bytes(beside_it)
    if where.name.endswith(".tiktoken") and (where.parent / "tokenizer.json").exists():
        files["tokenizer.json"] = read_bytes(where.parent / "tokenizer.json")
    return files


def _snapshot(path: str) -> str:
    """`hf://ORG/NAME`, or `hf://ORG/NAME@REVISION`, and maybe `/FILE` -> where the tokenizer is on this machine.

    Only those are downloaded; what huggingface_hub's cache holds is not downloaded again.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise missing_extra("huggingface-hub", "hub") from None
    org, _, rest = path.removeprefix(_HUB).strip("/").partition("/")
    name, _, inside = rest.partition("/")
    name, _, revision = name.partition("@")
    try:
        found = snapshot_download(f"{org}/{name}", revision=revision or None, allow_patterns=list(_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as e:
        raise TinydataError(
            f"cannot get the tokenizer of this Hugging Face repository: {str(e).splitlines()[0]}",
            where=path,
            fix="check the name (hf://ORG/NAME), the network and, if it is gated, `hf auth login`; or pass a directory",
            code=UNREADABLE,
        ) from None
    return f"{found}/{inside}" if inside else found


def load(files: dict[str, bytes], path: str = "") -> Tokenizer:
    """{name: content} -> Tokenizer; what a worker does with the files it was sent."""
    name = next(iter(files))
    if name.endswith(".json"):
        from tinydata.tokenizers.bytebpe import ByteLevelBPE
        from tinydata.tokenizers.pretrained import from_json

        return ByteLevelBPE.from_vocab_merges(files, path) if "merges.txt" in files else from_json(files, path)
    if name.endswith(".model"):
        from tinydata.tokenizers.spm import read_model

        return read_model(files, path)
    if name.endswith(".tiktoken"):
        from tinydata.tokenizers.ranks import Tiktoken

        return Tiktoken.from_ranks(files, path)
    if name.endswith("vocab.txt"):
        from tinydata.tokenizers.wordpiece import WordPiece

        return WordPiece.from_vocab(files, path)
    raise _unknown(path, f"{name} is no format that is known")


def _no_merges(where: Location) -> TinydataError:
    return TinydataError(
        "merges.txt is missing beside vocab.json",
        where=str(where),
        fix="put the two files of the tokenizer into one directory",
        code=UNREADABLE,
    )


def _unknown(path: str, why: str) -> TinydataError:
    return TinydataError(
        f"tokenizer of an unknown kind: {why}",
        where=str(path),
        fix="known: tokenizer.model (SentencePiece BPE and unigram), tokenizer.json (BPE, unigram, WordPiece),"
        " vocab.json + merges.txt, vocab.txt (WordPiece), NAME.tiktoken",
        code=UNREADABLE,
    )
