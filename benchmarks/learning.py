"""Does the trainer learn what an equal model learns elsewhere? `python -m benchmarks.learning SHARDS -o WORK`

On the same held-out text, in bits per byte:
* ours: `python -m trainer.run`, some seeds;
* LlamaForCausalLM of transformers in a plain torch loop: the same first weights, the same batches;
* an interpolated n-gram model with absolute discounting, over the same tokens;
* gzip and xz on the held-out text itself, of which every other row has seen nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from trainer.data.order import Sequences
from trainer.data.shards import Shards
from trainer.huggingface import architecture
from trainer.huggingface import weights as hf
from trainer.huggingface.tokenizer import read_tokenizer
from trainer.model.init import random_weights
from trainer.training import checkpoint
from trainer.training.config import RunConfig
from trainer.training.metrics import read
from trainer.training.optim import adamw, schedule
from trainer.training.resolve import model_config, resolve
from trainer.training.validation import Sums


def ours(shards: Path, out: Path, flags: list[str], seed: int) -> float:
    line = [sys.executable, "-m", "trainer.run", "--data", str(shards), "-o", str(out), "--seed", str(seed), *flags]
    subprocess.run(line, check=True)
    return [x["validation"] for x in read(out) if "validation" in x][-1]["bits_per_byte"]


def transformers(config: RunConfig, sequences: Sequences, out: Path) -> float:
    """The plain loop of the documentation: forward, backward, clip, step."""
    from transformers import AutoModelForCausalLM

    model_of = model_config(config, sequences.shards)
    hf.save(out, model_of, random_weights(model_of, config.seed), torch.float32)
    (out / "config.json").write_text(json.dumps(architecture.config_json(model_of, torch.float32)))
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    optimizer = adamw(model, config.lr, (config.beta1, config.beta2), config.weight_decay)
    rows = config.batch_tokens // config.seq_len
    for step in range(config.steps):
        numbers = sequences.order(np.arange(step * rows, (step + 1) * rows), config.seed)
        batch = sequences.read(numbers, model_of.vocab)
        loss = F.cross_entropy(model(batch.tokens).logits.flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(
                config.schedule, step, config.steps, warmup=config.warmup, floor=config.floor, decay=config.decay
            )
        optimizer.step()
        if step % 100 == 0:
            print(f"transformers: step {step} loss {float(loss):.4f}", file=sys.stderr)
    sums = Sums(sequences.shards)
    with torch.no_grad():
        for a in range(0, len(sequences.held_out), 16):
            numbers = sequences.held_out[a : a + 16]
            batch = sequences.read(numbers, model_of.vocab)
            logits = model(batch.tokens).logits.flatten(0, 1)
            nll = F.cross_entropy(logits, batch.targets.flatten(), reduction="none").view_as(batch.targets)
            sums.add(numbers * sequences.length + 1, batch.targets.numpy(), nll.numpy())
    return sums.result()["bits_per_byte"]


def ngram(config: RunConfig, sequences: Sequences, order: int, discount: float = 0.75) -> float:
    """P_n(w | c) = max(count(cw) - D, 0) / count(c) + D * distinct(c) / count(c) * P_{n-1}(w | c without its first)."""
    vocab, T = sequences.shards.vocab, sequences.length
    assert vocab ** (order) < 1 << 63
    rows = config.batch_tokens // config.seq_len
    numbers = sequences.order(np.arange(config.steps * rows), config.seed)
    train = np.stack([sequences.shards.read(i * T, i * T + T + 1) for i in numbers.tolist()])
    held = np.stack([sequences.shards.read(i * T, i * T + T + 1) for i in sequences.held_out.tolist()])
    p = np.full((len(held), T), 1.0 / vocab)
    for n in range(1, order + 1):
        grams, counts = np.unique(_keys(train, n, vocab)[:, max(0, 2 - n) :], return_counts=True)
        contexts, first = np.unique(grams // vocab, return_index=True)
        of_context = np.add.reduceat(counts, first)
        distinct = np.diff(np.append(first, len(grams)))
        keys = _keys(held, n, vocab)
        keys = keys[:, 1:] if n == 1 else keys  # targets from the second token on
        where = keys.shape[1]
        hit = _look(grams, keys)
        context = _look(contexts, keys // vocab)
        total = np.where(context >= 0, of_context[context], 1)
        own = np.where(hit >= 0, np.maximum(counts[hit] - discount, 0), 0) / total
        back = np.where(context >= 0, discount * distinct[context] / total, 1.0)
        p[:, T - where :] = own + back * p[:, T - where :]
    sums = Sums(sequences.shards)
    sums.add(sequences.held_out * T + 1, held[:, 1:], -np.log(p))
    return sums.result()["bits_per_byte"]


def _keys(ids: np.ndarray, n: int, vocab: int) -> np.ndarray:
    """[rows, T + 1] -> [rows, T + 2 - n]: each n-gram as one number."""
    width = ids.shape[1] + 1 - n
    key = np.zeros((len(ids), width), np.int64)
    for k in range(n):
        key = key * vocab + ids[:, k : k + width]
    return key


def _look(table: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where each key is in a sorted table; -1: nowhere."""
    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[at] == keys, at, -1)


def compressed(sequences: Sequences) -> dict[str, float]:
    """Bits per byte of the held-out text, compressed as one."""
    tok = read_tokenizer(_vocab(sequences.shards))
    T = sequences.length
    ids = np.concatenate([sequences.shards.read(i * T + 1, i * T + T + 1) for i in sequences.held_out.tolist()])
    text = tok.decode(ids.tolist()).encode()
    gz, xz = len(gzip.compress(text, 9)), len(lzma.compress(text, preset=9))
    return {f"gzip -9 of {len(text):,} bytes": 8 * gz / len(text), "xz -9": 8 * xz / len(text)}


def _vocab(shards: Shards) -> Path:
    path = Path(shards.tokenizer["path"])
    return path if path.is_absolute() else shards.directory.parent / path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--preset", default="tiny-1m")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--peers", type=int, default=1, help="of the seeds, how many the plain loop trains too")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    flags = ["--preset", told.preset, "--steps", str(told.steps), "--device", "cpu", "--holdout", "256"]
    flags += ["--batch-tokens", "4096", "--validate-every", "300"]
    rows: dict[str, float] = {}
    for seed in range(told.seeds):
        rows[f"ours, seed {seed}"] = ours(told.shards, told.out / f"ours-{seed}", flags, seed)
        model, state = checkpoint.load_model(told.out / f"ours-{seed}")
        config = RunConfig(
            **{**state["recipe"]["train"], "track": ()} if "recipe" in state else {**state["train"], "track": ()}
        )
        sequences = Sequences(Shards.open(told.shards), config.seq_len, config.holdout)
        config = resolve(config, model.config, sequences, 1)
        if seed < told.peers:
            rows[f"transformers, seed {seed}"] = transformers(config, sequences, told.out / f"peer-{seed}")
        print(json.dumps(rows, indent=1), file=sys.stderr)
    for order in (2, 3, 4):
        rows[f"{order}-gram of the same tokens"] = ngram(config, sequences, order)
    rows |= compressed(sequences)
    rows["uniform over the ids"] = math.log2(sequences.shards.vocab) * _targets_per_byte(sequences)
    tokens = config.steps * config.batch_tokens
    print(f"{told.preset}, {tokens:,} tokens, {len(sequences.held_out)} held-out sequences of {sequences.length}")
    for name, value in sorted(rows.items(), key=lambda x: x[1]):
        print(f"{name:<40}{value:8.4f} bits per byte")


def _targets_per_byte(sequences: Sequences) -> float:
    sums, T = Sums(sequences.shards), sequences.length
    ids = np.stack([sequences.shards.read(i * T, i * T + T + 1) for i in sequences.held_out.tolist()])
    sums.add(sequences.held_out * T + 1, ids[:, 1:], np.full((len(ids), T), math.log(2)))
    return sums.result()["bits_per_byte"]


if __name__ == "__main__":
    main()
