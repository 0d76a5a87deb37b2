"""The model card of an export: what the model is, what it was trained on and how, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from trainer import plan
from trainer.architecture import CUSTOM, architecture
from trainer.model import ModelConfig
from trainer.origin import Origin

_SHARDS = 20  # listed by name; of more, the number


def text(name: str, trained: ModelConfig, written: ModelConfig, dtype: torch.dtype, origin: Origin) -> str:
    """`trained`: the model; `written`: what the directory holds, another one if it was folded -> Markdown."""
    tags = ["tinydata", "causal-lm", *(["custom_code"] if architecture(written) == CUSTOM else [])]
    front = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}
    parts = [
        "---\n" + "".join(f"{k}: {json.dumps(v)}\n" for k, v in front.items()) + "---",
        f"# {name}",
        _model(trained, written, dtype),
        _loading(written),
        _training(origin),
        _data(origin),
        _metrics(origin.metrics),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def without_paths(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts for publishing: names of directories, without where they lie on this machine."""
    out = {k: dict(v) if isinstance(v, dict) else v for k, v in facts.items() if k not in ("guard", "world")}
    for table, keys in (("data", ["directory"]), ("tokenizer", ["path"]), ("train", ["data", "out", "init", "kept"])):
        for key in keys:
            if isinstance(out.get(table), dict) and out[table].get(key):
                out[table][key] = Path(out[table][key]).name
    return out


def _model(trained: ModelConfig, written: ModelConfig, dtype: torch.dtype) -> str:
    count = sum(plan.parameters(written).values())
    switches = {
        "tied embeddings": trained.tied,
        "query and key norms": trained.qk_norm,
        f"series informed activation of {trained.series} terms": trained.series > 1,
        f"augmented shortcut, width / {trained.shortcut}": trained.shortcut > 0,
    }
    rows = {
        "architecture": architecture(written),
        "parameters": f"{count:,}",
        "weights": str(dtype).removeprefix("torch."),
        "layers x width": f"{written.depth} x {written.width:,}",
        "feed-forward": f"{written.ffn:,}",
        "heads": f"{written.heads} of {written.head_dim}, {written.kv_heads} of keys and values",
        "vocabulary": f"{written.vocab:,}",
        "sequence length": f"{written.seq_len:,}",
        "switches": ", ".join(k for k, on in switches.items() if on) or "none",
    }
    note = ""
    if written.ffn != trained.ffn:
        note = (
            f"\n\nTrained with a feed-forward network of {trained.ffn:,} and the series informed activation "
            f"(PanGu-π, arXiv 2312.17276), folded exactly into plain SwiGLU of {written.ffn:,}."
        )
    return "## Model\n\n" + _table(("", ""), rows.items()) + note


def _loading(written: ModelConfig) -> str:
    custom = architecture(written) == CUSTOM
    argument = ", trust_remote_code=True" if custom else ""
    note = "\n\nThe code that it runs is `modeling_tinydata.py` in this directory." if custom else ""
    return (
        f"""## Loading

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH"{argument})
tokenizer = AutoTokenizer.from_pretrained("PATH")
```

or, without transformers, `python -m trainer.generate PATH "Once upon a time"`."""
        + note
    )


def _training(origin: Origin) -> str:
    facts = without_paths(origin.facts)
    recipe = {k: v for k, v in (facts.get("train") or {}).items() if v not in ("", None, [], ())}
    if not recipe:
        return ""
    rows = {"steps taken": f"{facts.get('step', 0):,}", "tokens seen": f"{facts.get('tokens', 0):,}"} | recipe
    return "## Recipe\n\n" + _table(("", ""), rows.items())


def _data(origin: Origin) -> str:
    facts, manifest = without_paths(origin.facts), origin.manifest
    tokenizer = facts.get("tokenizer") or {}
    if not facts.get("data") and not tokenizer:
        return ""
    rows = {k: f"{v:,}" if isinstance(v, int) else v for k, v in (facts.get("data") or {}).items() if v is not None}
    if tokenizer:
        what = f"{tokenizer.get('path')}: {tokenizer.get('family')}, {tokenizer.get('size', 0):,} ids"
        rows |= {"tokenizer": what, "tokenizer's fingerprint": tokenizer.get("fingerprint")}
    out = "## Data\n\n" + _table(("", ""), rows.items())
    if manifest.get("domains"):
        domains = ((n or "-", f"{d['documents']:,}", f"{d['tokens']:,}") for n, d in manifest["domains"].items())
        out += "\n\n" + _table(("domain", "documents", "tokens"), domains)
    shards = manifest.get("shards", [])
    if shards:
        listed = ((s["name"], f"{s['documents']:,}", f"{s['tokens']:,}") for s in shards[:_SHARDS])
        out += "\n\n" + _table(("shard", "documents", "tokens"), listed)
    if len(shards) > _SHARDS:
        out += f"\n\nand {len(shards) - _SHARDS:,} shards more."
    return out


def _metrics(lines: list[dict[str, Any]]) -> str:
    """The last line of training and the last validation."""
    rows = []
    steps = [line for line in lines if "loss" in line]
    checks = [line for line in lines if line.get("validation")]
    for name, found in (("training", steps[-1:]), ("validation", checks[-1:])):
        for line in found:
            values = line["validation"] if name == "validation" else line
            rows += [(name, line["step"], k, v) for k, v in _numbers(values) if k in _SHOWN or name == "validation"]
    return "## Metrics\n\n" + _table(("", "step", "", ""), rows) if rows else ""


_SHOWN = ("loss", "bits_per_byte")


def _numbers(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for k, v in values.items():
        if isinstance(v, dict):
            yield from _numbers(v, f"{prefix}{k} / ")
        elif isinstance(v, float):
            yield prefix + k, f"{v:.4f}"
        elif isinstance(v, int) and not isinstance(v, bool):
            yield prefix + k, f"{v:,}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(x).replace("|", "\\|") for x in line) + " |" for line in lines)
