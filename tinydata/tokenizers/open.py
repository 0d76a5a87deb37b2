"""Path of a tokenizer -> an object of its family: `open_tokenizer(path)`."""

from __future__ import annotations

import json
import re
from typing import Any

from tinydata.core.errors import UNREADABLE, TinydataError, missing_extra
from tinydata.core.location import Location, list_files, read_bytes
from tinydata.tokenizers.base import Tokenizer, fingerprint
from tinydata.tokenizers.families import hf_files
from tinydata.tokenizers.families.sentencepiece import SentencePieceBPE, parse_model
from tinydata.tokenizers.families.tiktoken import Tiktoken, from_tekken, is_ranks
from tinydata.tokenizers.families.tokenizer_json import broken, check_bpe, check_tokens, read_json


def describe(path: str, tok: Tokenizer) -> dict[str, Any]:
    """The entry of a manifest."""
    return {"path": path, "family": tok.family, "size": tok.size, "fingerprint": fingerprint(tok)}


_LOADED: dict[tuple[tuple[str, bytes], ...], Tokenizer] = {}


def loaded(files: dict[str, bytes], path: str = "") -> Tokenizer:
    """{name: content} -> Tokenizer, loaded once per process."""
    key = tuple(files.items())
    if key not in _LOADED:
        _LOADED[key] = load(files, path)
    return _LOADED[key]


_MORE_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "config.json",
    "tiktoken.json",
)
_HUB = "hf://"
_HUB_FILES = ("tokenizer*", "*.model", "vocab.*", "merges.txt", "*.tiktoken", *_MORE_FILES)
_MAIN = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
)


def open_tokenizer(path: str) -> Tokenizer:
    """A directory or a file -> Tokenizer.

    Supported: `tokenizer.model`, `tokenizer.json`, `vocab.json` with `merges.txt`, `vocab.txt`, `NAME.tiktoken`,
    `tekken.json`, and `hf://ORG/NAME`.
    Raises TinydataError if nothing is at the path, or the family is not supported.
    """
    return load(read_tokenizer(path), path)


def read_tokenizer(path: str) -> dict[str, bytes]:
    """Path -> {name: content} of the tokenizer's files, the main one first."""
    where = Location.of(path if not path.startswith(_HUB) else _snapshot(path))
    if where.is_dir():
        names = {f.name: f for f in list_files(where)}
        main = next((n for n in sorted(names) if n.endswith(".tiktoken")), None)
        main = main or next((n for n in _MAIN if n in names), None)
        main = main or next((n for n in sorted(names) if n.endswith(".model")), None)
        if main is None:
            raise _unknown(path, f"the directory contains {', '.join(sorted(names)[:8]) or 'nothing'}")
        if main == "vocab.json" and "merges.txt" not in names:
            raise _no_merges(where)
        required = "merges.txt" if main == "vocab.json" else "tokenizer.json"
        wanted = [main, *(n for n in (required, *_MORE_FILES) if n in names and n != main)]
        return {n: read_bytes(names[n]) for n in wanted}
    if not where.exists():
        raise TinydataError(
            "no tokenizer was found at this path",
            where=str(path),
            fix=_hub_advice(path)
            or "pass a directory or one of tokenizer.model, tokenizer.json, tekken.json, vocab.json (with merges.txt)",
            code=UNREADABLE,
        )
    files = {where.name: read_bytes(where)}
    if where.name.endswith(("vocab.json", "encoder.json")):
        merges = where.parent / "merges.txt"
        if not merges.exists():
            raise _no_merges(where.parent)
        files["merges.txt"] = read_bytes(merges)
    if where.name.endswith(".tiktoken") or (where.name.endswith(".model") and is_ranks(files[where.name])):
        beside = [where.parent / name for name in ("tokenizer.json", "tokenizer_config.json", "tiktoken.json")]
        files |= {file.name: read_bytes(file) for file in beside if file.exists()}
    return files


def _hub_advice(path: str) -> str:
    """What to do if a path that does not exist looks like ORG/NAME of the Hugging Face Hub."""
    like_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not path.endswith((".json", ".model", ".txt", ".tiktoken"))
    return (
        f"for a tokenizer on the Hugging Face Hub write hf://{path}; otherwise pass a directory or file"
        if like_hub
        else ""
    )


def _snapshot(path: str) -> str:
    """`hf://ORG/NAME[@REVISION][/FILE]` -> path of the tokenizer on this machine.

    Only the tokenizer's files are downloaded, and only those that huggingface_hub's cache does not contain.
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
        folder = snapshot_download(f"{org}/{name}", revision=revision or None, allow_patterns=list(_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as e:
        raise TinydataError(
            f"cannot get the tokenizer of this Hugging Face repository: {str(e).splitlines()[0]}",
            where=path,
            fix="check the name (hf://ORG/NAME), the network and, if it is gated, `hf auth login`; or pass a directory",
            code=UNREADABLE,
        ) from None
    return f"{folder}/{inside}" if inside else folder


def load(files: dict[str, bytes], path: str = "") -> Tokenizer:
    """{name: content} -> Tokenizer; workers receive the contents, not a path."""
    name = next(iter(files))
    if name == "tekken.json":
        return load(from_tekken(files[name], path), path)
    if name.endswith(".json"):
        from tinydata.tokenizers.families.byte_bpe import ByteLevelBPE

        return ByteLevelBPE.from_vocab_merges(files, path) if "merges.txt" in files else from_json(files, path)
    if name.endswith(".tiktoken") or (name.endswith(".model") and is_ranks(files[name])):
        return Tiktoken.from_ranks(files, path)
    if name.endswith(".model"):
        return read_model(files, path)
    if name.endswith("vocab.txt"):
        from tinydata.tokenizers.families.wordpiece import WordPiece

        return WordPiece.from_vocab(files, path)
    raise _unknown(path, f"the format of {name} is not known")


def _no_merges(where: Location) -> TinydataError:
    return TinydataError(
        "vocab.json needs merges.txt in the same directory, but the file is missing",
        where=str(where),
        fix="put the two files of the tokenizer into one directory",
        code=UNREADABLE,
    )


def _unknown(path: str, why: str) -> TinydataError:
    return TinydataError(
        f"this kind of tokenizer is not supported: {why}",
        where=str(path),
        fix="supported: tokenizer.model (SentencePiece BPE and unigram), tokenizer.json (BPE, unigram, WordPiece),"
        " vocab.json + merges.txt, vocab.txt (WordPiece), NAME.tiktoken",
        code=UNREADABLE,
    )


def from_json(files: dict[str, bytes], path: str) -> Tokenizer:
    """{name: content}, tokenizer.json first -> the class for its model; raises TinydataError on another one."""
    from tinydata.tokenizers.families.byte_bpe import ByteLevelBPE
    from tinydata.tokenizers.families.char_bpe import CharacterBPE
    from tinydata.tokenizers.families.unigram import UnigramJson
    from tinydata.tokenizers.families.wordpiece import WordPiece

    config = read_json(next(iter(files.values())), path)
    model = config.get("model")
    if not isinstance(model, dict):
        raise broken("JSON, but without a model", path)
    check_tokens(config, hf_files.read(files, "added_tokens.json"), path)
    kind = model.get("type") or ("BPE" if "merges" in model else "of unknown type")
    if kind == "BPE" and _byte_level(config):
        return ByteLevelBPE.from_config(files, config, path)
    marked = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if kind not in ("Unigram", "WordPiece", "BPE") or (kind == "BPE" and marked):
        what = kind if kind != "BPE" else f"BPE whose pieces are marked with {marked!r}"
        raise TinydataError(
            f"this kind of tokenizer is not supported: tokenizer.json with model {what}",
            where=str(path),
            fix="known in tokenizer.json: BPE, Unigram, WordPiece; for a SentencePiece model pass its tokenizer.model",
            code=UNREADABLE,
        )
    if kind == "BPE":
        check_bpe(model, path)
        return CharacterBPE(files, config)
    vocab = model.get("vocab")
    if not vocab or not isinstance(vocab, list if kind == "Unigram" else dict):
        raise broken("its model has no vocab", path)
    return (UnigramJson if kind == "Unigram" else WordPiece)(files, config)


def _byte_level(config: dict[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps([config.get("pre_tokenizer"), config.get("decoder")])


def read_model(files: dict[str, bytes], path: str) -> Tokenizer:
    """{name: content}, the model first -> the class for its type; raises TinydataError on another type.

    If the tokenizer.json in its directory numbers the pieces differently (XLM-R: by one), that file is read
    instead: models and token files created with transformers have its ids.
    """
    from tinydata.tokenizers.families.unigram import SentencePieceUnigram

    proto = parse_model(next(iter(files.values())), path)
    kind = proto.trainer_spec.model_type
    if kind not in (1, 2):
        name = {3: "word", 4: "char"}.get(kind, "unknown")
        raise TinydataError(
            f"this kind of tokenizer is not supported: a SentencePiece model of type {name}",
            where=str(path),
            fix="SentencePiece models of type BPE and unigram are supported",
            code=UNREADABLE,
        )
    if "tokenizer.json" in files:
        vocab = hf_files.read(files, "tokenizer.json").get("model", {}).get("vocab", {})
        ids = {row[0]: i for i, row in enumerate(vocab)} if isinstance(vocab, list) else vocab
        if any(ids.get(p.piece) != i for i, p in enumerate(proto.pieces)):
            rest = {n: c for n, c in list(files.items())[1:] if n != "tokenizer.json"}
            return from_json({"tokenizer.json": files["tokenizer.json"], **rest}, path)
    return (SentencePieceUnigram if kind == 1 else SentencePieceBPE)(files, proto)
