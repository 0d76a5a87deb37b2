"""SentencePiece models (`tokenizer.model`): what all types share, and BPE. Unigram is in unigram.py.

In BPE, merges are implied by the scores.

Two pieces merge if their concatenation is a piece, the best score first, and of equal scores the leftmost.
User-defined symbols are matched first and never merge. Source: google/sentencepiece
src/bpe_model.cc, src/sentencepiece_model.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, Self

import numpy as np

from tinydata.core.errors import UNREADABLE, TinydataError, missing_extra
from tinydata.tokenizers.base import ADDED, BYTE, CONTROL, NORMAL, SPACE, first_free, places, removable_pieces
from tinydata.tokenizers.families import hf_files
from tinydata.tokenizers.families.converted import bpe_files
from tinydata.tokenizers.families.merging import Merging, character_symbols
from tinydata.tokenizers.kernels.bpe import Pairs, Symbols, build_pairs
from tinydata.tokenizers.kernels.cutters import Cutter, PairCuts, Sections, atoms
from tinydata.tokenizers.kernels.implied_merges import code_points, splits
from tinydata.tokenizers.kernels.neighbors import neighbors_of

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # sentencepiece_model.proto
_KIND = {_NORMAL: NORMAL, _UNKNOWN: CONTROL, _CONTROL: CONTROL, _USER: ADDED, _UNUSED: NORMAL, _BYTE: BYTE}


class SentencePiece:
    """What SentencePiece models of every type share: the pieces, the library, the compact model."""

    family = ""
    main = "tokenizer.model"  # file name of the compact model

    def __init__(self, files: dict[str, bytes], proto: Any):
        self.files = files
        self.proto = proto
        self._texts: list[str] = [p.piece for p in proto.pieces]  # reading protobuf is slow
        self._types = np.array([p.type for p in proto.pieces], np.uint8)
        inside = len(proto.pieces)
        extra = {i: t for i, t in hf_files.added_tokens(files).items() if i >= inside}
        self.size = max([inside, *(i + 1 for i in extra)])  # tokens added after the model's, as by Hugging Face
        self.kinds = np.full(self.size, ADDED, np.uint8)
        self.kinds[:inside] = [_KIND[t] for t in self._types.tolist()]
        self.pieces = [_piece_bytes(p, t) for p, t in zip(self._texts, self._types.tolist(), strict=True)]
        self.pieces += [extra.get(i, "").encode() for i in range(inside, self.size)]
        self.gap = np.array([i >= inside and i not in extra for i in range(self.size)])

    # -- the native library -------------------------------------------------------------------

    @cached_property
    def _native(self) -> Any:
        import sentencepiece

        if hasattr(sentencepiece, "SetMinLogLevel"):
            sentencepiece.SetMinLogLevel(2)  # errors only: it warns of InternLM's NUL piece each time
        name, content = next(iter(self.files.items()))
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError as e:
            raise TinydataError(
                f"this kind of tokenizer is not supported: the sentencepiece library cannot read it ({e})",
                where=name,
                fix="pass a tokenizer.model as sentencepiece writes it, downloaded whole",
                code=UNREADABLE,
            ) from None

    def encode(self, texts: list[str]) -> list[list[int]]:
        return self._native.encode(texts, num_threads=1)

    def decode(self, ids: list[int]) -> str:
        inside = len(self.proto.pieces)
        if all(i < inside for i in ids):
            return self._native.decode(ids)
        runs = groupby(ids, key=lambda i: i < inside)
        texts = (self._native.decode(list(run)) if known else self._literal(run) for known, run in runs)
        return "".join(texts)

    def _literal(self, ids: Iterable[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode()

    # -- normalization ------------------------------------------------------------------------

    @cached_property
    def _rewrites(self) -> bool:
        spec = self.proto.normalizer_spec
        return bool(spec.precompiled_charsmap) or spec.remove_extra_whitespaces

    may_change = None
    library_only: list[str] = []  # noqa: RUF012 - a constant

    def normalize(self, text: str) -> str | None:
        return None if self._rewrites else text

    @property
    def unk(self) -> int:
        """Id of the unknown piece."""
        return int(np.argmax(self._types == _UNKNOWN))

    @cached_property
    def byte_ids(self) -> np.ndarray:
        """int32[256]: the id of each byte; empty without byte fallback."""
        ids = np.flatnonzero(self.kinds == BYTE).astype(np.int32)
        order = [int(self._texts[i][3:5], 16) for i in ids]
        return ids[np.argsort(order)] if len(ids) == 256 else ids[:0]

    def removable(self) -> np.ndarray:
        return removable_pieces(self.kinds, self.gap, self._texts, len(self.byte_ids) > 0)

    # -- the compact tokenizer ----------------------------------------------------------------

    def order(self, keep: np.ndarray) -> np.ndarray:
        return np.sort(np.asarray(keep, np.int64))

    def subset(self, keep: np.ndarray) -> Self:
        proto = parse_model(next(iter(self.files.values())), "")
        order = self.order(keep)
        pieces = [self.proto.pieces[int(i)] for i in order if i < len(self.proto.pieces)]
        del proto.pieces[:]
        proto.pieces.extend(pieces)
        new_id = {int(old): new for new, old in enumerate(order)}
        spec = proto.trainer_spec
        spec.vocab_size = len(pieces)
        for name in ("unk_id", "bos_id", "eos_id", "pad_id"):
            old = getattr(spec, name)
            if old >= 0:
                setattr(spec, name, new_id.get(old, -1))
        for field in ("self_test_data", "selfTestData"):  # its expected pieces are the big model's
            if field in proto.DESCRIPTOR.fields_by_name:
                proto.ClearField(field)
        files = {self.main: proto.SerializeToString(deterministic=True)}
        files.update(hf_files.renumber(self.files, new_id))
        return type(self)(files, proto)

    def written(self) -> dict[str, bytes]:
        """As base.Tokenizer: a model that came without Hugging Face's files gets them."""
        if "tokenizer_config.json" in self.files:
            return self.files
        return {**self.files, **{name: c for name, c in self.converted().items() if name not in self.files}}

    def converted(self) -> dict[str, bytes]:
        """{name: content} of the Hugging Face files of this model."""
        raise NotImplementedError


class SentencePieceBPE(SentencePiece, Merging):
    """A SentencePiece model of type BPE."""

    family = "sentencepiece-bpe"
    implied = True

    # -- for the compiled kernels -------------------------------------------------------------

    @property
    def why_not(self) -> str:
        spec = self.proto.normalizer_spec
        if self._rewrites:
            return "its normalizer rewrites the text"
        if not spec.escape_whitespaces or self.proto.trainer_spec.treat_whitespace_as_suffix:
            return "it does not write spaces as ▁ before words"
        if SPACE not in self._texts:
            return "it has no piece for the space"
        if (self.kinds == BYTE).sum() != 256:
            return "it has no byte fallback, so runs of unknown characters depend on their neighbours"
        if (self._types == _UNUSED).any():
            return "it has pieces of type UNUSED, which merge and split again"
        if any("\0" in p and len(p) > 1 for p in self._texts):
            return "a piece contains the NUL character"
        if any(SPACE in self._texts[i] for i in np.flatnonzero(self._types == _USER)):
            return "a user-defined symbol contains a space"
        return ""

    @cached_property
    def cutter(self) -> Cutter | None:
        if self.why_not:
            return None
        normal = [self.pieces[i] for i in np.flatnonzero(self._types == _NORMAL)]
        found = atoms({self._texts[i].encode(): i for i in np.flatnonzero(self._types == _USER).tolist()})
        dummy = self.proto.normalizer_spec.add_dummy_prefix
        prefix = int(self.symbols.by_char[ord(SPACE)]) if dummy else -1
        return PairCuts(Sections(*found, prefix), neighbors_of(normal, blank=True))

    @cached_property
    def _names(self) -> dict[str, int]:
        """{text: symbol} of the pieces that take part in merging, and of characters that only occur inside them."""
        merging = np.isin(self._types, (_NORMAL, _USER, _UNUSED))
        names = {self._texts[i]: i for i in np.flatnonzero(merging).tolist()}
        names.pop("\0", None)  # with byte fallback the library spells NUL as a byte, piece or not
        inside = dict.fromkeys("".join(self._texts[i] for i in np.flatnonzero(self._types == _NORMAL)) + SPACE)
        extra = [c for c in inside if c not in names]
        return names | {c: self.size + k for k, c in enumerate(extra)}

    @cached_property
    def symbols(self) -> Symbols:
        return character_symbols(self._names, self.size, self.byte_ids, self.unk)

    @cached_property
    def _merges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(left, right, result, rank): every way to split a piece into two symbols; the piece's score is its rank."""
        symbols = np.fromiter(self._names.values(), np.int64, len(self._names))
        is_result = symbols < len(self._types)
        is_result[is_result] = np.isin(self._types[symbols[is_result]], (_NORMAL, _UNUSED))
        left, right, result = splits(code_points(list(self._names)), symbols, is_result).T
        scores = -np.array([p.score for p in self.proto.pieces], np.float32)
        return left, right, result, np.unique(scores, return_inverse=True)[1][result]

    @cached_property
    def pairs(self) -> Pairs:
        left, right, result, rank = self._merges
        return build_pairs(left, right, rank, result)

    # -- the compact tokenizer ----------------------------------------------------------------

    def order(self, keep: np.ndarray) -> np.ndarray:
        """Control and bytes, then normal pieces by score descending, then user-defined.

        transformers derives the merges from this order: with another one its LlamaTokenizer agreed with
        sentencepiece on only 449 of 600 documents.
        """
        pieces = self.proto.pieces

        def place(i: int) -> tuple[int, float, int]:
            kind = self.kinds[i]
            if i >= len(pieces):
                return 3, 0.0, i
            return (1, -pieces[i].score, i) if kind == NORMAL else (2 if kind == ADDED else 0, 0.0, i)

        return np.array(sorted((int(i) for i in keep), key=place), np.int64)

    def extended(self, merges: Sequence[tuple[int, int]]) -> Self:
        """As base.Extendable: the new pieces' scores are below all others, so their merges come last."""
        at, lowest = first_free(self), min(p.score for p in self.proto.pieces)
        step = max(1.0, 2 * float(np.spacing(np.float32(abs(lowest)))))  # scores are float32
        texts = {i: self._texts[i] for i in np.flatnonzero(self.kinds == NORMAL).tolist()}
        proto = parse_model(next(iter(self.files.values())), "")
        learned = []
        for k, (left, right) in enumerate(merges):
            text = texts[self.size + k] = texts[left] + texts[right]
            learned.append(type(proto).SentencePiece(piece=text, score=lowest - step * (k + 1), type=_NORMAL))
        pieces = [*self.proto.pieces[:at], *learned, *self.proto.pieces[at:]]
        del proto.pieces[:]
        proto.pieces.extend(pieces)
        proto.trainer_spec.vocab_size = len(pieces)
        new_id = {old: int(new) for old, new in enumerate(places(self, len(merges))[: self.size])}
        files = {self.main: proto.SerializeToString(deterministic=True)}
        files |= hf_files.renumber({n: c for n, c in self.files.items() if n not in files}, new_id)
        if "tokenizer.json" in files:
            files["tokenizer.json"] = hf_files.extend_converted(files["tokenizer.json"], at, [p.piece for p in learned])
        return type(self)(files, proto)

    def converted(self) -> dict[str, bytes]:
        left, right, result, rank = self._merges
        normal = self._types == _NORMAL
        inside = max(len(normal) - 1, 0)  # characters without a piece have higher numbers
        known = (left <= inside) & (right <= inside)
        known &= normal[np.minimum(left, inside)] & normal[np.minimum(right, inside)] & normal[result]
        sizes = np.array([len(t) for t in self._texts])
        order = np.flatnonzero(known)
        order = order[np.lexsort((sizes[left[order]], result[order], rank[order]))]
        texts = self._texts
        merges = [(texts[a], texts[b]) for a, b in zip(left[order].tolist(), right[order].tolist(), strict=True)]
        return bpe_files(self.proto, merges)


def _piece_bytes(text: str, kind: int) -> bytes:
    if kind == _BYTE:
        return bytes([int(text[3:5], 16)])
    if kind in (_NORMAL, _UNUSED):
        return text.replace(SPACE, " ").encode()
    return text.encode()


def parse_model(content: bytes, path: str) -> Any:
    """Content of a tokenizer.model -> ModelProto; raises TinydataError if it is not one, or without sentencepiece."""
    try:
        from sentencepiece import sentencepiece_model_pb2 as pb
    except ImportError:
        raise missing_extra("sentencepiece (with protobuf)", "spm") from None
    proto: Any = pb.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(content)
    except Exception:  # protobuf's DecodeError: imported only where protobuf is
        proto.Clear()
    if not proto.pieces:
        raise TinydataError(
            "this kind of tokenizer is not supported: this is not a SentencePiece model",
            where=str(path),
            fix="check that the file was downloaded whole (a Git LFS pointer is 130 bytes)",
            code=UNREADABLE,
        )
    return proto
