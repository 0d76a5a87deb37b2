"""The Hugging Face files of a tokenizer, with their ids renumbered and nothing else changed.

`tokenizer.json`, `tokenizer_config.json` (added_tokens_decoder), `added_tokens.json`,
`special_tokens_map.json`, `chat_template.jinja`. A removed token is removed from every list, and no old id remains.
"""

from __future__ import annotations

import json
from typing import Any

from tinydata.core.errors import UNREADABLE, TinydataError

Json = dict[str, Any]


def dump(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def renumber(files: dict[str, bytes], new_id: dict[int, int]) -> dict[str, bytes]:
    """{name: content}, {old id: new id} -> those of the files above, renumbered."""
    out = {}
    removed = {text for i, text in added_tokens(files).items() if i not in new_id}
    for name, content in files.items():
        if name == "tokenizer.json":
            out[name] = dump(slice_json(read(files, name), new_id))
        elif name == "tokenizer_config.json":
            out[name] = dump(_without(_config(read(files, name), new_id), removed))
        elif name == "added_tokens.json":
            out[name] = dump({t: new_id[i] for t, i in read(files, name).items() if i in new_id})
        elif name == "special_tokens_map.json" and removed:
            out[name] = dump(_without(read(files, name), removed))
        elif name in ("special_tokens_map.json", "chat_template.jinja"):
            out[name] = content
    return out


def added_tokens(files: dict[str, bytes]) -> dict[int, str]:
    """{id: text} of the added tokens that any of the files lists."""
    decoder = read(files, "tokenizer_config.json").get("added_tokens_decoder") or {}
    try:
        return {
            **{i: t for t, i in read(files, "added_tokens.json").items()},
            **{int(i): str(t["content"]) for i, t in decoder.items()},
            **{t["id"]: t["content"] for t in read(files, "tokenizer.json").get("added_tokens", [])},
        }
    except (TypeError, ValueError, KeyError, AttributeError):
        raise TinydataError(
            "added_tokens_decoder in tokenizer_config.json, or added_tokens, is not a table of ids and tokens",
            where=next(iter(files)),
            fix="repair or remove that entry",
            code=UNREADABLE,
        ) from None


def read(files: dict[str, bytes], name: str) -> Json:
    """The JSON object in one of the files, {} if the file is missing; raises TinydataError for anything else."""
    try:
        value = json.loads(files.get(name, b"{}"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TinydataError(
            f"{name}, in the tokenizer's directory, is not a JSON object",
            where=name,
            fix="repair or remove that file",
            code=UNREADABLE,
        )
    return value


def slice_json(tokenizer: Json, new_id: dict[int, int]) -> Json:
    """A tokenizer.json with only the tokens in `new_id`.

    A merge is kept if both its parts and its result are. The ids of added tokens, post-processor and padding follow.
    """
    model = dict(tokenizer["model"])
    out = {**tokenizer, "model": model}
    if isinstance(model["vocab"], list):  # Unigram: [piece, score] in the order of ids
        rows = sorted((new_id[i], row) for i, row in enumerate(model["vocab"]) if i in new_id)
        model["vocab"] = [row for _, row in rows]
        if model.get("unk_id") is not None:
            model["unk_id"] = new_id[model["unk_id"]]
    else:
        vocab = {t: new_id[i] for t, i in model["vocab"].items() if i in new_id}
        model["vocab"] = dict(sorted(vocab.items(), key=lambda kv: kv[1]))
        if "merges" in model:
            model["merges"] = [m for m in model["merges"] if _is_spelled(m, vocab)]
    added = [{**t, "id": new_id[t["id"]]} for t in tokenizer.get("added_tokens", []) if t["id"] in new_id]
    out["added_tokens"] = sorted(added, key=lambda t: t["id"])
    if out.get("post_processor"):
        out["post_processor"] = _processor(out["post_processor"], new_id)
    if out.get("padding"):
        out["padding"] = {**out["padding"], "pad_id": new_id.get(out["padding"]["pad_id"], 0)}
    return out


def extend_json(tokenizer: Json, at: int, texts: list[str], merges: list[tuple[str, str]]) -> Json:
    """A tokenizer.json (model BPE) with len(texts) free ids from `at` on -> with these pieces and merges last."""
    model = dict(tokenizer["model"])
    vocab = model["vocab"] | {text: at + k for k, text in enumerate(texts)}
    model["vocab"] = dict(sorted(vocab.items(), key=lambda kv: kv[1]))
    listed = bool(model["merges"]) and not isinstance(model["merges"][0], str)
    model["merges"] = [*model["merges"], *(list(m) if listed else " ".join(m) for m in merges)]
    return {**tokenizer, "model": model}


def extend_converted(content: bytes, at: int, texts: list[str]) -> bytes:
    """A tokenizer.json converted from a SentencePiece model, len(texts) free ids from `at` on -> with these pieces.

    Every way to split a piece into two pieces is a merge, as in the conversion.
    """
    tokenizer = json.loads(content)
    vocab = tokenizer["model"]["vocab"] | {text: at + k for k, text in enumerate(texts)}
    merges = []
    for text in texts:
        parts = [(text[:i], text[i:]) for i in range(1, len(text))]
        known = [(vocab[a], vocab[b], a, b) for a, b in parts if a in vocab and b in vocab]
        merges += [(a, b) for _, _, a, b in sorted(known)]
    return dump(extend_json(tokenizer, at, texts, merges))


def split_merge(merge: str | list[str]) -> tuple[str, str]:
    """A merge in either version of the format -> (left, right)."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _is_spelled(merge: str | list[str], vocab: dict[str, int]) -> bool:
    left, right = split_merge(merge)
    return left in vocab and right in vocab and left + right in vocab


def _processor(node: Any, new_id: dict[int, int]) -> Any:
    """Renumbers TemplateProcessing's `ids` and the [token, id] pairs of Bert and Roberta."""
    if isinstance(node, list):
        return [_processor(n, new_id) for n in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key == "ids" and isinstance(value, list):
            out[key] = [new_id[i] for i in value]
        elif key in ("sep", "cls") and isinstance(value, list) and len(value) == 2:
            out[key] = [value[0], new_id[value[1]]]
        else:
            out[key] = _processor(value, new_id)
    return out


def _config(config: Json, new_id: dict[int, int]) -> Json:
    if isinstance(config.get("added_tokens_decoder"), dict):
        kept = {new_id[int(i)]: t for i, t in config["added_tokens_decoder"].items() if int(i) in new_id}
        config = {**config, "added_tokens_decoder": {str(i): kept[i] for i in sorted(kept)}}
    return config


def _without(config: Json, removed: set[str]) -> Json:
    """A configuration whose lists of special tokens lack the removed ones."""

    def keeps(token: Any) -> bool:
        return (token.get("content") if isinstance(token, dict) else token) not in removed

    return {key: [t for t in v if keeps(t)] if isinstance(v, list) else v for key, v in config.items()}
