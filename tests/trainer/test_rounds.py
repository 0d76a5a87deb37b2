"""Training on a round: kept sequences of the base shards, from the run before, weighted or not, its losses logged."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")

import torch.nn.functional as F

from tests.trainer.processes import completed, curve, sequence_losses
from trainer.data.order import Sequences
from trainer.data.rounds import opened
from trainer.data.shards import Shards
from trainer.errors import TrainerError
from trainer.model.init import random_weights
from trainer.model.transformer import Model, ModelConfig
from trainer.training.checkpoint import load_model


def write_round(shards, out, kept, inclusion, seq_len=32, number=1):
    """As `tinydata resample` does without --materialize, in two parts."""
    base = Shards.open(shards)
    out.mkdir()
    half = len(kept) // 2
    for i, part in enumerate((slice(0, half), slice(half, None))):
        table = pa.table({"sequence": kept[part], "inclusion": inclusion[part].astype(np.float32)})
        pq.write_table(table, out / f"keep-{i:07d}.parquet")
    place = {"path": "shards", "absolute": str(shards), "fingerprint": base.fingerprint}
    facts = {"verb": "resample", "round": number, "seq_len": seq_len, "base": place}
    facts["kept"] = {"sequences": len(kept), "sha256": hashlib.sha256(kept.astype(np.int64).tobytes()).hexdigest()}
    (out / "manifest.json").write_text(json.dumps(facts))
    return out


@pytest.fixture(scope="module")
def kept(shards):
    return np.arange(1, (Shards.open(shards).tokens - 1) // 32, 3)


@pytest.fixture
def workspace(finished, tmp_path):
    """A copy of a directory with a tinydata.toml, a finished run and the round that comes next."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def finished(shards, kept, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("workspace")
    table = {"preset": "tiny-1m", "width": 64, "depth": 2, "expand": 2.0, "seq_len": 32, "device": "cpu"}
    table |= {"batch_tokens": 384, "steps": 6, "save_every": 3}
    lines = [f"{k} = {json.dumps(v)}" for k, v in table.items()]
    (tmp_path / "tinydata.toml").write_text(
        "\n".join([f"[encode]\nout = {json.dumps(str(shards))}\n[train]", *lines, ""])
    )
    assert trained(tmp_path, "--holdout", "24").returncode == 0
    write_round(shards, tmp_path / "round-1", kept, np.full(len(kept), 0.5))
    return tmp_path


def trained(cwd, *flags, program="trainer.run", ranks=1):
    return completed(program, *flags, cwd=cwd, ranks=ranks)


def test_where_a_run_began_stays_what_it_was(workspace):
    """Though the run that it began with is another one in the meantime."""
    first, flags = workspace / "run", ["--round", "1", "--save-every", "2"]
    assert trained(workspace, *flags, "--steps", "2").returncode == 0
    began = json.loads((workspace / "run-1" / "recipe.json").read_text())
    assert began["init"]["recipe"] == json.loads((first / "recipe.json").read_text())["fingerprint"]
    assert began["init"]["step"] == 6
    state = sorted(first.glob("checkpoints/*/state.json"))[-1]
    state.write_text(json.dumps({**json.loads(state.read_text()), "step": 7, "fingerprint": "another"}))
    assert trained(workspace, *flags, "--steps", "4").returncode == 0
    now = json.loads((workspace / "run-1" / "recipe.json").read_text())
    assert now["init"] == began["init"] and now["fingerprint"] != began["fingerprint"]


def test_round_1_is_what_comes_after_the_run(workspace, shards, kept):
    done = trained(workspace, "--round", "1", "--steps", "4", "--save-every", "4")
    assert done.returncode == 0, done.stderr
    recipe = json.loads((workspace / "run-1" / "recipe.json").read_text())
    assert (recipe["train"]["data"], recipe["train"]["init"]) == ("round-1", "run")
    assert recipe["init"].items() >= {"path": "run", "step": 6, "tokens": 6 * 384}.items()
    held = Sequences(Shards.open(shards), 32, 24).held_out
    assert recipe["data"]["round"] == 1 and recipe["data"]["directory"] == str(shards)
    assert recipe["data"]["held out"] == 24  # as the run before, which was told so
    assert recipe["data"]["sequences"] == len(np.setdiff1d(kept, held))
    again = trained(workspace, "--round", "1", "--steps", "6")
    assert again.returncode == 0 and "resuming from step 4" in again.stderr, again.stderr
    assert len(curve(workspace / "run-1")) == 6
    found = trained(workspace, "run-1", "--json", program="trainer.evaluate")
    assert "24 that were held out" in json.loads(found.stdout)["data"]["sequences"], found.stderr
    found = trained(workspace, "run", "--data", "round-1", "--json", program="trainer.evaluate")
    assert "24 that were held out" in json.loads(found.stdout)["data"]["sequences"], found.stderr
    (workspace / "round-1").rename(workspace / "round-2")
    assert trained(workspace, "--round", "2", "--steps", "1").returncode == 0
    assert json.loads((workspace / "run-2" / "recipe.json").read_text())["train"]["init"] == "run-1"


def test_it_starts_from_a_run_bit_for_bit(workspace):
    before = workspace / "run" / "checkpoints" / "step-00000003"
    flags = ["--round", "1", "--steps", "1", "--lr", "1e-30", "--warmup", "0", "--weight-decay", "0"]
    done = trained(workspace, *flags, "--init", str(before), "-o", "there")
    assert done.returncode == 0, done.stderr
    first, got = (dict(load_model(p).model.named_parameters()) for p in (before, workspace / "there"))
    assert first.keys() == got.keys()
    for name, p in got.items():
        torch.testing.assert_close(p, first[name], rtol=0, atol=2e-30)
    assert "--depth cannot change the shape of the existing model" in trained(workspace, *flags, "--depth", "3").stderr
    assert "neither a run" in trained(workspace, *flags, "--init", "nothing").stderr


def test_a_run_on_other_ids_is_no_beginning(workspace, shards):
    shutil.copytree(shards, workspace / "other")
    manifest = json.loads((workspace / "other" / "manifest.json").read_text())
    manifest["tokenizer"] |= {"fingerprint": "f" * 32}
    (workspace / "other" / "manifest.json").write_text(json.dumps(manifest))
    done = trained(workspace, "--data", "other", "--init", "run", "-o", "next")
    assert done.returncode == 1 and "the model uses the tokenizer" in done.stderr and "f" * 32 in done.stderr


def test_what_a_round_is_of(shards, kept, tmp_path):
    place = write_round(shards, tmp_path / "round-1", kept, np.linspace(0.2, 1, len(kept)))
    base, found = opened(place)
    numbers, inclusion = found.kept(kept.max() + 1)
    assert (numbers == kept).all() and inclusion[0] == np.float32(0.2) and base.directory == shards
    facts = json.loads((place / "manifest.json").read_text())
    facts["base"]["absolute"] = "/nowhere"
    (place / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(TrainerError, match="were not found"):
        opened(place)
    assert opened(place, str(shards))[0].directory == shards
    shutil.copytree(shards, tmp_path / "shards")
    assert opened(place)[0].directory == tmp_path / "shards"
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    manifest["files"][f"{manifest['shards'][0]['name']}.bin"]["sha256"] = "0"
    (tmp_path / "shards" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainerError, match="from different shards"):
        opened(place)
    (place / "keep-0000001.parquet").unlink()
    with pytest.raises(TrainerError, match="do not match its manifest"):
        opened(place, str(shards))[1].kept(kept.max() + 1)


def test_a_round_that_does_not_fit_says_so(workspace, shards):
    assert "--seq-len 64 is not possible" in trained(workspace, "--round", "1", "--seq-len", "64").stderr
    assert "cannot be combined with a round" in trained(workspace, "--round", "1", "--kept", "x").stderr
    assert "needs the probability" in trained(workspace, "--unbias", "-o", "new").stderr
    facts = json.loads((shards / "manifest.json").read_text()) | {"verb": "resample", "round": 1}
    shutil.copytree(shards, workspace / "round-3")
    (workspace / "round-3" / "manifest.json").write_text(json.dumps(facts))  # as --materialize leaves it
    done = trained(workspace, "--round", "3", "--init", "run", "--steps", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads((workspace / "run-3" / "recipe.json").read_text())["data"]["round"] == 1


# -- weights -----------------------------------------------------------------------------------


def test_weights_unbias_a_mean(shards, kept):
    inclusion = np.linspace(0.1, 1, len(kept)).astype(np.float32)
    s = Sequences(Shards.open(shards), 32, 40, kept, inclusion)
    own = np.setdiff1d(kept, s.held_out)
    weights = s.weights(own)
    assert len(own) < len(kept) and weights.mean() == pytest.approx(1, abs=1e-6)
    of = dict(zip(kept.tolist(), inclusion.tolist(), strict=True))
    ratio = weights * np.array([of[i] for i in own.tolist()])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert (s.weights(own[[5, 2, 5]]) == weights[[5, 2, 5]]).all()


def test_gradient_of_a_weighted_loss():
    """Against a plain loop: each row alone, its loss times its weight."""
    config = ModelConfig(vocab=101, width=48, depth=2, heads=4, kv_heads=4, head_dim=12, ffn=64, seq_len=16, tied=True)
    model = Model(config).double()
    model.load_state_dict(dict(random_weights(config, 0)))
    generator = torch.Generator().manual_seed(1)
    tokens, targets = (torch.randint(config.vocab, (5, 16), generator=generator) for _ in range(2))
    targets[1, :7] = -100
    weights = torch.rand(5, generator=generator) * 3
    total, nll, count = model(tokens, targets, None, weights)
    total.backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    expected = 0.0
    for row in range(5):
        loss = F.cross_entropy(model(tokens[row : row + 1])[0], targets[row], reduction="sum")
        expected = expected + loss * weights[row].double()
    expected.backward()
    torch.testing.assert_close(total.detach(), expected.detach())
    assert float(nll.sum()) != pytest.approx(float(total.detach())) and int(count) == 73
    for name, p in model.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.slow
def test_unbiased_runs(workspace, shards, kept):
    """Equal probabilities are weights of one: the same run. Others are another, on two ranks the same."""
    flags, logged = ["--steps", "4", "--log-every", "1"], ["--log-sequence-loss"]
    for out, more in (("plain", []), ("even", ["--unbias"])):
        assert trained(workspace, "--round", "1", "-o", out, *flags, *more).returncode == 0
    assert curve(workspace / "plain") == curve(workspace / "even")
    shutil.rmtree(workspace / "round-1")
    write_round(shards, workspace / "round-1", kept, np.linspace(0.05, 1, len(kept)))
    assert "--unbias: False -> True" in trained(workspace, "--round", "1", "-o", "plain", *flags, "--unbias").stderr
    assert trained(workspace, "--round", "1", "-o", "one", *flags, "--unbias", *logged).returncode == 0
    done = trained(workspace, "--round", "1", "-o", "two", *flags, "--unbias", *logged, ranks=2)
    assert done.returncode == 0, done.stderr
    one, two, plain = ([x[1] for x in curve(workspace / name)] for name in ("one", "two", "plain"))
    assert one == pytest.approx(two, rel=1e-5) and abs(one[0] - plain[0]) > 1e-3
    one, two = (sequence_losses(workspace / name) for name in ("one", "two"))
    assert one.select(["step", "sequence", "tokens"]) == two.select(["step", "sequence", "tokens"])
    np.testing.assert_allclose(one["nll"], two["nll"], rtol=1e-5)
    unweighted = sum(one["nll"].to_pylist()[:12]) / sum(one["tokens"].to_pylist()[:12])
    assert unweighted == pytest.approx(plain[0], rel=1e-6), "what is logged is the loss itself"


# -- losses ------------------------------------------------------------------------------------


def test_logged_losses_are_those_of_the_weights_before_each_step(workspace, shards):
    """The first step's are the initial model's, by an independent forward; their sums are the logged loss."""
    flags = ["--data", str(shards), "--steps", "5", "--save-every", "2", "--log-sequence-loss", "--init", "run"]
    assert trained(workspace, *flags, "-o", "one").returncode == 0
    table = sequence_losses(workspace / "one")
    assert table["step"].to_pylist() == [s for s in range(1, 6) for _ in range(12)]
    assert sorted(p.name for p in (workspace / "one" / "losses").iterdir()) == [
        f"step-{s:08d}.parquet" for s in (2, 4, 5)
    ]
    s = Sequences(Shards.open(shards), 32, 24)
    assert table["sequence"].to_numpy().tolist() == s.order(np.arange(60), 0).tolist()
    batch = s.read(table["sequence"].to_numpy()[:12], s.shards.vocab)
    with torch.no_grad():
        logits = load_model(workspace / "run").model(batch.tokens)
    nll = F.cross_entropy(logits.transpose(1, 2), batch.targets, reduction="none")
    np.testing.assert_allclose(table["nll"].to_numpy()[:12], nll.sum(1), rtol=1e-5)
    np.testing.assert_allclose(table["max"].to_numpy()[:12], nll.amax(1), rtol=1e-5)
    mean = np.array(table["nll"]).reshape(5, 12).sum(1) / np.array(table["tokens"]).reshape(5, 12).sum(1)
    np.testing.assert_allclose(mean, [x[1] for x in curve(workspace / "one")], rtol=1e-6)
