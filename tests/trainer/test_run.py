"""Runs as a user starts them: killed, resumed, on other numbers of processes, stopped, refused."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")

from tests.trainer.processes import command, completed, curve, environment, sequence_losses, started
from trainer.errors import REQUEUE, TrainerError
from trainer.training.checkpoint import latest, load_model


def weights(run):
    return load_model(run).model.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_learns_and_leaves_what_it_says(train, tmp_path):
    done = train("run", "--steps", "40", "--lr", "0.01")
    losses = [loss for _, loss, _ in curve(tmp_path / "run")]
    assert len(losses) == 40 and losses[-1] < losses[0] - 1
    assert "done at step 40 of 40" in done.stderr and "epochs" in done.stderr
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    checks = [x["validation"] for x in lines if "validation" in x]
    assert checks[-1]["bits_per_byte"] < checks[0]["bits_per_byte"] - 0.3
    assert set(checks[0]["domains"]) == {"code", "text"}
    step = next(x for x in lines if x["step"] == 30 and "loss" in x)
    assert {"lr", "grad_norm", "tokens", "tokens_per_s", "memory_bytes", "targets"} <= step.keys()
    assert step["tokens"] == 30 * 384
    model, state = load_model(tmp_path / "run")
    assert state["step"] == 40 and state["tokenizer"]["size"] == model.config.vocab
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000032", "step-00000036", "step-00000040"]
    assert (tmp_path / "run" / "latest").read_text() == kept[-1]
    again = train("run", "--steps", "40", "--lr", "0.01")  # nothing left to do
    assert "resuming from step 40" in again.stderr and len(curve(tmp_path / "run")) == 40


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM, signal.SIGKILL), pytest.param((signal.SIGKILL,) * 3, marks=pytest.mark.slow)],
    ids=lambda signals: " ".join(s.name for s in signals),
)
def test_stopped_at_random_and_resumed_it_is_the_same_to_the_last_bit(signals, train, shards, tmp_path):
    flags = ["--steps", "36", "--save-every", "5", "--lr", "0.005", "--mask-documents"]
    flags += ["--log-every", "1", "--log-sequence-loss"]
    train("whole", *flags)
    run, rng = tmp_path / "stopped", random.Random(time.time_ns())
    for number in signals:
        process = started("trainer.run", *command(shards, run, *flags), cwd=tmp_path)
        at = rng.randrange(1, 9)
        for text in process.stderr:
            at -= text.startswith("step") and "held out" not in text
            if at == 0:
                time.sleep(rng.random() * 0.05)
                process.send_signal(number)
                break
        done = process.end()
        if number == signal.SIGTERM:  # finishes the step and saves
            assert done.returncode == REQUEUE and "stopped at step" in done.stderr
            assert latest(run).name == f"step-{curve(run)[-1][0]:08d}"
    (run / "losses").mkdir(exist_ok=True)
    (run / "losses" / "step-00000035.parquet").write_bytes(b"of steps that no checkpoint has")
    train("stopped", *flags)
    assert curve(run) == curve(tmp_path / "whole")
    assert same(weights(run), weights(tmp_path / "whole"))
    assert sequence_losses(run) == sequence_losses(tmp_path / "whole")


@pytest.mark.slow
def test_saved_on_two_processes_and_resumed_on_one_and_three(train, shards, tmp_path):
    flags = ["--steps", "9", "--save-every", "3", "--keep", "0"]
    train("one", *flags)
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer.run"]
    line += command(shards, tmp_path / "two", *flags)
    done = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    reference = curve(tmp_path / "one")
    assert_near(curve(tmp_path / "two"), reference)
    for ranks in (1, 3):
        run = tmp_path / f"then {ranks}"
        shutil.copytree(tmp_path / "two", run)
        for step in (6, 9):
            shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
        done = train(run.name, *flags, ranks=ranks)
        assert "resuming from step 3" in done.stderr
        assert_near(curve(run), reference)


def assert_near(got, expected):
    assert [x[0] for x in got] == [x[0] for x in expected]
    for (_, loss, norm), (_, loss0, norm0) in zip(got, expected, strict=True):
        assert loss == pytest.approx(loss0, rel=1e-5) and norm == pytest.approx(norm0, rel=1e-3)


@pytest.mark.slow
def test_micro_batches_change_nothing(train, tmp_path):
    flags = ["--steps", "8", "--series", "2", "--shortcut", "8", "--tied", "False"]
    train("a", *flags)
    train("b", *flags, "--micro-batch", "3")
    assert_near(curve(tmp_path / "b"), curve(tmp_path / "a"))


@pytest.mark.slow
def test_compiled_once_whatever_the_documents(train):
    """Each step after the second must meet no new graph; validation adds its own, once."""
    done = train("run", "--steps", "6", "--compile", "on", "--mask-documents")
    after = done.stderr.split("step       3  loss")[1]  # from here on the program reports every new graph
    assert "Recompiling" not in after, after


def test_another_run_is_refused_and_harmless_changes_are_named(train, tmp_path):
    train("run", "--steps", "4")
    for flags, words in (
        (["--seed", "1"], "--seed: 0 -> 1"),
        (["--depth", "3"], "depth: 2 -> 3"),
        (["--holdout", "8"], "held out"),
    ):
        done = train("run", "--steps", "4", *flags, code=1)
        assert "belongs to a different run" in done.stderr and words in done.stderr
    done = train("run", "--steps", "6", "--lr", "0.001")
    assert "--lr:" in done.stderr and "-> 0.001" in done.stderr and "done at step 6" in done.stderr
    assert "already contains a run" in train("run", "--steps", "6", "--resume", "never", code=1).stderr


def test_other_tokenizer_is_refused_naming_both(train, shards, tmp_path):
    train("run", "--steps", "2")
    copy = tmp_path / "other"
    shutil.copytree(shards, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    old = manifest["tokenizer"]["fingerprint"]
    manifest["tokenizer"] |= {"fingerprint": "f" * 32, "path": "elsewhere"}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = train("run", "--steps", "2", "--data", str(copy), code=1)
    assert old in done.stderr and "f" * 32 in done.stderr and "elsewhere" in done.stderr


def test_nan_never_reaches_the_weights(train, tmp_path):
    """A learning rate of 1e30 makes them useless and then not finite; the run stops and says which data."""
    done = train("run", "--steps", "60", "--lr", "1e30", "--warmup", "1", "--clip", "0", code=1)
    assert "consecutive steps were skipped" in done.stderr
    lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    skipped = [x for x in lines if "skipped" in x]
    assert skipped and all(len(x["sequences"]) == 12 for x in skipped)


def test_another_list_of_kept_sequences_is_another_run(train, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"sequence": list(range(0, 1200, 2))}), tmp_path / "keep.parquet")
    train("run", "--steps", "2", "--kept", "keep.parquet", "--holdout", "0")
    pq.write_table(pa.table({"sequence": list(range(1, 1201, 2))}), tmp_path / "keep.parquet")
    done = train("run", "--steps", "3", "--kept", "keep.parquet", "--holdout", "0", code=1)
    assert "hash of the kept sequences" in done.stderr


def test_a_run_whose_first_step_was_skipped_continues(train, shards, tmp_path):
    """Weights that are not finite make every step one that is skipped; its checkpoint must still be whole."""
    from trainer.huggingface import architecture
    from trainer.huggingface import weights as hf
    from trainer.model.init import random_weights
    from trainer.model.transformer import ModelConfig
    from trainer.training import checkpoint

    vocab = json.loads((shards / "manifest.json").read_text())["tokenizer"]["size"]
    config = ModelConfig(vocab=vocab, width=48, depth=1, heads=4, kv_heads=4, head_dim=12, ffn=256, tied=True)
    weights = dict(random_weights(config, 0))
    weights["norm.weight"][0] = float("nan")
    hf.save(tmp_path / "init", config, iter(weights.items()), torch.float32)
    checkpoint.write_json(tmp_path / "init" / "config.json", architecture.config_json(config, torch.float32))
    flags = ["--data", shards, "--init", "init", "-o", "run", "--holdout", 0]
    flags += ["--seq-len", 32, "--batch-tokens", 384, "--device", "cpu"]
    for steps in (1, 2):
        done = completed("trainer.run", *flags, "--steps", steps, cwd=tmp_path)
        assert done.returncode == 0 and "SKIPPED" in done.stderr, done.stderr[-2000:]
    assert "resuming from step 1" in done.stderr


def test_half_a_checkpoint_is_not_one(train, tmp_path):
    train("run", "--steps", "4", "--save-every", "2", "--keep", "0")
    folder = tmp_path / "run" / "checkpoints"
    (folder / "step-00000004").rename(folder / "step-00000004.tmp")
    assert latest(tmp_path / "run").name == "step-00000002"
    before = curve(tmp_path / "run")
    assert "resuming from step 2" in train("run", "--steps", "4", "--save-every", "2", "--keep", "0").stderr
    assert curve(tmp_path / "run") == before


def test_nothing_in_a_checkpoint_is_run(train, tmp_path):
    train("run", "--steps", "1")
    metadata = latest(tmp_path / "run") / ".metadata"

    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'owned')!r}, 'w')",)

    metadata.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(TrainerError, match="is not allowed"):
        load_model(tmp_path / "run")
    assert not (tmp_path / "owned").exists()


def test_plan_needs_no_data_and_starts_nothing(tmp_path):
    flags = ["--plan", "--preset", "pi-1b-pro", "--series", "1", "--shortcut", "0"]
    done = completed("trainer.run", *flags, "--depth", "20", cwd=tmp_path)
    assert "embedding + head are 18.07%" in done.stdout and "951,983,872" in done.stdout
    done = completed("trainer.run", *flags, "--depth", "15", "--vocab", "100883", cwd=tmp_path)
    assert "embedding + head are 38.20%" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_wrong_batches_and_no_data_say_what_to_do(train, tmp_path):
    done = train("run", "--batch-tokens", "100", code=1)
    assert "not a multiple" in done.stderr and "--batch-tokens 96" in done.stderr
    done = completed("trainer.run", cwd=tmp_path)
    assert done.returncode == 1 and "no training data" in done.stderr and "Traceback" not in done.stderr


def test_tinydata_toml_is_read(shards, tmp_path):
    (tmp_path / "tinydata.toml").write_text(
        f'[encode]\nout = {json.dumps(str(shards))}\n[train]\npreset = "tiny-1m"\nseq_len = 32\nbatch_tokens = 384\n'
        'width = 64\ndepth = 1\nsteps = 3\ndevice = "cpu"\nout = "here"\n'
    )
    done = completed("trainer.run", "--steps", 2, cwd=tmp_path)
    assert done.returncode == 0 and "done at step 2" in done.stderr, done.stderr
    assert len(curve(tmp_path / "here")) == 2
    (tmp_path / "below").mkdir()  # as with git, the file serves the directories below it
    done = completed("trainer.run", "--steps", 2, cwd=tmp_path / "below")
    assert done.returncode == 0 and "done at step 2" in done.stderr, done.stderr
    assert not list((tmp_path / "below").iterdir())
    (tmp_path / "tinydata.toml").write_text("[train]\nstep = 3\n")
    done = completed("trainer.run", "--steps", 2, cwd=tmp_path)
    assert done.returncode == 1 and "'step' is not an option" in done.stderr


def test_it_starts_from_another_model_bit_for_bit(shards, byte_bpe, tmp_path):
    from trainer.huggingface import architecture
    from trainer.huggingface import weights as hf
    from trainer.model.init import random_weights
    from trainer.model.transformer import ModelConfig

    config = ModelConfig(
        vocab=json.loads((shards / "manifest.json").read_text())["tokenizer"]["size"],
        width=48, depth=2, heads=4, kv_heads=2, head_dim=12, ffn=256, series=2, tied=True,
    )  # fmt: skip
    weights = dict(random_weights(config, 9))
    init = tmp_path / "init"
    hf.save(init, config, iter(weights.items()), torch.float32)
    (init / "config.json").write_text(json.dumps(architecture.config_json(config, torch.float32)))
    flags = ["--data", shards, "--init", init, "--seq-len", 32, "--batch-tokens", 384]
    flags += ["--device", "cpu", "--holdout", 8, "-o", "run"]

    def run(*more):
        return completed("trainer.run", *flags, *more, cwd=tmp_path)

    done = run("--steps", "1", "--lr", "1e-30", "--warmup", "0")
    assert done.returncode == 0, done.stderr
    trained = load_model(tmp_path / "run").model
    for name, p in trained.named_parameters():  # one step of 1e-30 moves only what was zero
        torch.testing.assert_close(p.data, weights[name], rtol=0, atol=2e-30)
    assert "cannot change the shape of the existing model" in run("--depth", "3").stderr
    for file in (byte_bpe / "qwen").iterdir():
        shutil.copy(file, init)
    done = run("--steps", "2")
    assert done.returncode == 1 and str(init) in done.stderr and "the shards were encoded with" in done.stderr
