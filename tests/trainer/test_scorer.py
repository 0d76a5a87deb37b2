"""Scores are transformers' own losses, whatever reads the model; padding, masks and what a scorer knows of itself."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tinydata[train]'")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'tinydata[dev]'")

import torch.nn.functional as F

from tests.trainer.processes import command, completed
from trainer import export
from trainer.data.order import Sequences
from trainer.data.shards import Shards
from trainer.errors import TrainerError
from trainer.huggingface.tokenizer import read_tokenizer
from trainer.scorer import Scorer, devices, load
from trainer.training.checkpoint import load_model


def theirs(path, ids):
    """ids [n, T+1] -> nll [n, T], by transformers alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True).float().eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(ids[:, :-1])).logits
    return F.cross_entropy(logits.transpose(1, 2), torch.from_numpy(ids[:, 1:]), reduction="none").numpy()


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
    """A run with masked documents, its losses logged."""
    out = tmp_path_factory.mktemp("scored") / "run"
    flags = ["--steps", "4", "--save-every", "2", "--mask-documents", "--series", "2", "--log-sequence-loss"]
    done = completed("trainer.run", *command(shards, out, *flags), cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return out


def test_a_model_of_ours_in_all_its_forms(run, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", str(run), "-o", str(tmp_path / "hf"), "--dtype", "float32"])
    export.program()
    s = Sequences(Shards.open(shards), 32, 24)
    numbers = np.arange(0, 700, 2)  # several forward passes of 64, and no multiple
    ids = np.stack([s.shards.read(i * 32, i * 32 + 33) for i in numbers.tolist()])
    before = Scorer.loads
    scorer = load(str(run))
    assert scorer.rows == 64 and Scorer.loads == before, "weights are read when they are needed"
    got = scorer(ids)
    assert got.dtype == np.float32 and abs(got - theirs(tmp_path / "hf", ids)).max() < 1e-4
    assert abs(got.mean(axis=1) - theirs(tmp_path / "hf", ids).mean(axis=1)).max() < 1e-4
    exported = load(str(tmp_path / "hf"))
    np.testing.assert_allclose(exported(ids), got, atol=1e-5)
    assert scorer(ids[:3]).tobytes() == got[:3].tobytes(), "the same forward, filled up"
    assert scorer(ids[:0]).shape == (0, 32)
    assert scorer.loads == before + 2 and torch.get_num_threads() == 1
    first = load(str(run / "checkpoints" / "step-00000002"))
    assert abs(first(ids[:4]) - got[:4]).max() > 1e-3
    assert first.facts["step"] == 2 and scorer.facts["step"] == 4 and scorer.facts["precision"] == "float32"
    expected = sum(p.numel() for p in load_model(run).model.parameters())
    assert scorer.facts["parameters"] == expected < exported.facts["parameters"], "the series is folded there"
    json.dumps([scorer.facts, exported.facts])
    assert scorer.tokenizer["fingerprint"] == exported.tokenizer["fingerprint"] == s.shards.tokenizer["fingerprint"]
    assert scorer.losses == str(run / "losses") == first.losses and exported.losses == ""
    assert scorer.seq_len == exported.seq_len == 32 and scorer.vocab == s.shards.vocab
    assert scorer.masks_documents and exported.masks_documents
    for one in (scorer, first, exported):
        assert (one.held_out(s.shards.fingerprint, s.total) == s.held_out).all()
        assert one.held_out("other", s.total).size == 0
    with pytest.raises(TrainerError, match="outside the model's vocabulary"):
        scorer(np.full((1, 33), scorer.vocab))


def test_documents_and_targets_without_a_loss(run, shards):
    """Beside the trainer's own reading of the same sequences."""
    s = Sequences(Shards.open(shards), 32, 24)
    numbers = s.shards.documents[[1, 3, 2]] // 32  # in which documents begin
    batch = s.read(numbers, s.shards.vocab, documents=True)
    ids = np.stack([s.shards.read(i * 32, i * 32 + 33) for i in numbers.tolist()])
    bears = np.random.default_rng(0).random((3, 32)) < 0.7
    got = load(str(run))(ids, bears, batch.documents.numpy())
    with torch.no_grad():
        _, nll, _ = load_model(run).model(batch.tokens, batch.targets, batch.documents)
    assert (got[~bears] == 0).all() and bears.sum() < bears.size
    np.testing.assert_allclose(got[bears], nll.numpy()[bears], atol=1e-5)
    alone = load(str(run))(ids)
    assert abs(alone - nll.numpy()).max() > 1e-3


def test_held_out_tokens_in_sequences_of_another_length(run, shards):
    s = Sequences(Shards.open(shards), 32, 24)
    scorer = load(str(run), seq_len=48)
    tokens = {t for i in s.held_out.tolist() for t in range(i * 32, i * 32 + 32)}
    total = (s.shards.tokens - 1) // 48
    expected = sorted({t // 48 for t in tokens} & set(range(total)))
    assert scorer.seq_len == 48 and scorer.held_out(s.shards.fingerprint, total).tolist() == expected


def test_an_architecture_that_is_not_ours(tmp_path):
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24, "vocab_size": 97}
    transformers.set_seed(0)
    config = transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0, initializer_range=0.3)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    ids = np.random.default_rng(0).integers(0, 97, (700, 25))
    before = Scorer.loads
    scorer = load(str(tmp_path))
    assert scorer.seq_len == 24 and scorer.vocab == 97 and scorer.tokenizer == {} and not scorer.masks_documents
    kept = np.arange(24) % 5 > 0
    got = scorer(ids, np.broadcast_to(kept, (700, 24)))
    expected = theirs(tmp_path, ids)
    assert (got[:, ~kept] == 0).all()
    assert abs(got - expected)[:, kept].max() < 1e-4 and expected.std() > 0.1
    scorer(ids)
    assert Scorer.loads == before + 1
    assert scorer.facts["parameters"] == sum(p.numel() for p in transformers.GPT2LMHeadModel(config).parameters())
    with pytest.raises(TrainerError, match="longer than the model's maximum of 24"):
        load(str(tmp_path), seq_len=64)


def test_what_is_no_model_says_so(tmp_path):
    with pytest.raises(TrainerError, match="neither a run"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "unheard of"}')
    with pytest.raises(TrainerError, match="'unheard of' are not supported"):
        load(str(tmp_path))
    assert all(d.startswith("cuda:") for d in devices())


def test_a_real_model_as_transformers_scores_it(shared):
    path = shared / "models" / "stories260K" / "hf"
    if not path.is_dir():
        pytest.skip("no models/stories260K in ../shared/data")
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " * 40
    tokens = transformers.AutoTokenizer.from_pretrained(path)(text)["input_ids"]
    scorer = load(str(path))
    assert scorer.seq_len == 512
    ids = np.array(tokens[: 2 * 512 + 1])
    ids = np.stack([ids[:513], ids[512:1025]])
    got = scorer(ids)
    assert abs(got - theirs(path, ids)).max() < 1e-4 and got[0, 20:80].mean() < 2


def test_a_real_models_losses_are_those_on_record(shared):
    """Means over a begin token and a document's first 1,200 characters, in windows of the context: 511 targets each."""
    path = shared / "models" / "stories260K"
    if not path.is_dir():
        pytest.skip("no models/stories260K in ../shared/data")
    with gzip.open(path / "expected_losses.jsonl.gz", "rt") as f:
        expected = {(x["source"], x["id"]): x for x in map(json.loads, f)}
    text = {}
    for name in ("en_tinystories", "code_commons_lang"):
        with pa.input_stream(str(shared / "corpora" / f"{name}.jsonl.zst"), compression="zstd") as f:
            text |= {(x["source"], x["id"]): x["text"] for x in map(json.loads, f.read().splitlines())}
    tokenizer = read_tokenizer(path / "hf")
    known = sorted(expected.keys() & text.keys())
    ids, bears, of = [], [], []
    for i, key in enumerate(known):
        document = np.array([1, *tokenizer.encode(text[key][:1200])])
        assert len(document) == expected[key]["tokens_incl_bos"]
        for a in range(0, len(document) - 1, 511):
            window = document[a : a + 512]
            ids.append(np.pad(window, (0, 512 - len(window))))
            bears.append(np.arange(1, 512) < len(window))
            of.append(i)
    bears = np.stack(bears)
    nll = load(str(path / "hf"), seq_len=511)(np.stack(ids), bears)
    assert len(known) >= 20
    means = np.bincount(of, nll.sum(axis=1)) / np.bincount(of, bears.sum(axis=1))
    np.testing.assert_allclose(means, [expected[key]["mean_nll_nats_per_token"] for key in known], atol=1e-4)
