"""The model card of an export: what the model is, what it was trained on and how, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from trainer.huggingface.architecture import CUSTOM, architecture
from trainer.model import cost
from trainer.model.transformer import ModelConfig
from trainer.training.origin import Origin

_LISTS = ("domains", "shards")
_SHARDS = 20  # listed by name; of more, the number
_SHAPE = ("preset", "width", "depth", "expand", "heads", "kv_heads", "vocab", "tied", "qk_norm", "series", "shortcut")
_PATHS = {
    "data": ("directory", "round directory"),
    "tokenizer": ("path",),
    "init": ("path",),
    "train": ("data", "base", "out", "init", "kept"),
}
_MACHINE = (
    "data",
    "base",
    "out",
    "plan",
    "resume",
    "track",
    "log_every",
    "validate_every",
    "save_every",
    "keep",
    "device",
)


def published(known: Origin) -> dict[str, Any]:
    """What tinydata.json says: the run's facts without this machine's paths, its data by domain, its last metrics."""
    out = {k: dict(v) if isinstance(v, dict) else v for k, v in known.facts.items() if k not in ("guard", "world")}
    for table, keys in _PATHS.items():
        for key in keys:
            if isinstance(out.get(table), dict) and out[table].get(key):
                out[table][key] = Path(out[table][key]).name
    if known.manifest:
        out["data"] = {**out.get("data", {}), **{k: known.manifest[k] for k in ("domains", "shards")}}
    steps = [line for line in known.metrics if "loss" in line]
    checks = [line for line in known.metrics if "validation" in line]
    if steps or checks:
        held_out = {"step": checks[-1]["step"], **checks[-1]["validation"]} if checks else {}
        out["metrics"] = {"training": steps[-1] if steps else {}, "held out": held_out}
    return out


def text(name: str, trained: ModelConfig, written: ModelConfig, dtype: torch.dtype, facts: dict[str, Any]) -> str:
    """`trained`: the model; `written`: what the directory holds, another one if it was folded -> Markdown."""
    tags = ["tinydata", "causal-lm", *(["custom_code"] if architecture(written) == CUSTOM else [])]
    front = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}
    parts = [
        "---\n" + "".join(f"{k}: {json.dumps(v)}\n" for k, v in front.items()) + "---",
        f"# {name}",
        _model(trained, written, dtype),
        _loading(written),
        _metrics(facts.get("metrics") or {}),
        _training(facts),
        _data(facts),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _model(trained: ModelConfig, written: ModelConfig, dtype: torch.dtype) -> str:
    count = sum(cost.parameters(written).values())
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
    note = "\n\nIts code is `modeling_tinydata.py` in this directory." if custom else ""
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


def _metrics(found: dict[str, Any]) -> str:
    held_out = found.get("held out") or {}
    rows = {"training": found.get("training") or {}, "held out": held_out}
    rows |= {f"held out: {name}": values for name, values in (held_out.get("domains") or {}).items()}
    shown = [
        (name, step, *(f"{values[k]:.4f}" if k in values else "" for k in ("loss", "bits_per_byte")))
        for name, values in rows.items()
        for step in [values.get("step", held_out.get("step"))]
        if values
    ]
    return "## Metrics\n\n" + _table(("", "step", "nats per token", "bits per byte"), shown) if shown else ""


def _training(facts: dict[str, Any]) -> str:
    options = {k: v for k, v in (facts.get("train") or {}).items() if k not in (*_SHAPE, *_MACHINE)}
    if not options:
        return ""
    rows = {"steps taken": f"{facts.get('step', 0):,}", "tokens seen": f"{facts.get('tokens', 0):,}"}
    rows |= {k: v for k, v in options.items() if k == "seed" or v not in ("", None, 0, -1, [], ())}
    return "## Recipe\n\n" + _table(("", ""), rows.items()) + "\n\nAll options are in `tinydata.json`."


def _data(facts: dict[str, Any]) -> str:
    data, tokenizer = facts.get("data") or {}, facts.get("tokenizer") or {}
    if not data and not tokenizer:
        return ""
    rows: dict[str, Any] = {k: f"{v:,}" if isinstance(v, int) else v for k, v in data.items() if k not in _LISTS}
    if tokenizer:
        what = f"{tokenizer.get('path')}: {tokenizer.get('family')}, {tokenizer.get('size', 0):,} ids"
        rows |= {"tokenizer": what, "tokenizer's fingerprint": tokenizer.get("fingerprint")}
    out = "## Data\n\n" + _table(("", ""), rows.items())
    domains = data.get("domains") or {}
    if domains:
        counts = ((name or "-", f"{d['documents']:,}", f"{d['tokens']:,}") for name, d in domains.items())
        out += "\n\n" + _table(("domain", "documents", "tokens"), counts)
    shards = data.get("shards") or []
    if shards:
        listed = ((s["name"], f"{s['documents']:,}", f"{s['tokens']:,}") for s in shards[:_SHARDS])
        out += "\n\n" + _table(("shard", "documents", "tokens"), listed)
    if len(shards) > _SHARDS:
        out += f"\n\nand {len(shards) - _SHARDS:,} more shards."
    return out


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(x).replace("|", "\\|") for x in line) + " |" for line in lines)
