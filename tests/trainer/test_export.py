"""What is exported is in transformers, without network, the model it was; read back, it is the same bits."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tinydata[train]'")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'tinydata[dev]'")

from safetensors import safe_open

from trainer import export, generate
from trainer.errors import TrainerError
from trainer.evaluation import model_card as card
from trainer.export import can_fold, export_model
from trainer.generate import continuation, streamed
from trainer.huggingface import architecture as huggingface_architecture
from trainer.huggingface import weights as hf
from trainer.huggingface.tokenizer import read_tokenizer
from trainer.model.transformer import Model, ModelConfig
from trainer.training.checkpoint import load_model
from trainer.training.origin import Origin, origin

BASE = ModelConfig(vocab=97, width=32, depth=3, heads=4, kv_heads=4, head_dim=8, ffn=48, seq_len=64)
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 16}
PI = {"series": 2, "shortcut": 4}
SWITCHES = {
    #                     changes                                                architecture   fold
    "plain":              ({},                                                   "Llama",       True),
    "tied":               ({"tied": True},                                       "Llama",       True),
    "gqa":                ({"kv_heads": 2},                                      "Llama",       True),
    "qk_norm":            ({"qk_norm": True},                                    "Qwen3",       True),
    "qkv_bias":           ({"qkv_bias": True},                                   "Qwen2",       True),
    "all biases":         ({"qkv_bias": True, "out_bias": True, "mlp_bias": True}, "Llama",     True),
    "out_bias":           ({"out_bias": True},                                   "Llama",       True),
    "qkv + mlp bias":     ({"qkv_bias": True, "mlp_bias": True},                 "Llama",       True),
    "qk_norm + qkv_bias": ({"qk_norm": True, "qkv_bias": True},                  "Qwen3",       True),
    "odd heads":          ({"heads": 3, "kv_heads": 1},                          "Mistral",     True),
    "free head_dim":      ({"head_dim": 16, "qkv_bias": True},                   "Llama",       True),
    "odd heads, qkv_bias": ({"heads": 3, "kv_heads": 3, "qkv_bias": True},       "Tinydata",    True),
    "odd heads, qk_norm": ({"heads": 3, "kv_heads": 1, "qk_norm": True},         "Qwen3",       True),
    "linear":             ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "Llama",   True),
    "series":             ({"series": 2},                                        "Tinydata",    False),
    "folded":             ({"series": 2},                                        "Llama",       True),
    "folded of 3, biases": ({"series": 3, "qkv_bias": True, "mlp_bias": True, "tied": True}, "Llama", True),
    "shortcut":           ({"shortcut": 4, "tied": True},                        "Tinydata",    True),
    "series + shortcut":  (PI,                                                   "Tinydata",    True),
    "series + qk_norm":   ({"series": 2, "qk_norm": True, "kv_heads": 2},        "Tinydata",    True),
    "everything":         (PI | {"qk_norm": True, "qkv_bias": True, "mlp_bias": True, "tied": True, "kv_heads": 1},
                                                                                 "Tinydata",    True),
    "odd heads, pi":      (PI | {"heads": 3, "kv_heads": 3, "out_bias": True},   "Tinydata",    True),
    "llama 3, pi":        (PI | {"rope_scaling": LLAMA3, "rope_theta": 5e5},     "Tinydata",    True),
}  # fmt: skip


def random_model(config: ModelConfig, dtype: Any = torch.float32) -> Model:
    """Every parameter at random: at its initial value a switch would have no effect."""
    torch.manual_seed(3)
    model = Model(config).to(dtype)
    model.inv_freq = model.inv_freq.float()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    return model


def ids(length: int = 40) -> torch.Tensor:
    return torch.randint(0, BASE.vocab, (2, length), generator=torch.Generator().manual_seed(4))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No socket, and nothing of earlier imports of custom code."""

    def refuse(*args: Any, **kwargs: Any):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def loaded(directory: Path, **options: Any) -> Any:
    found = transformers.AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True, **options).eval()
    assert found.config.architectures == [type(found).__name__]
    return found


@pytest.mark.parametrize("name", SWITCHES)
def test_transformers_gives_the_same_logits(name: str, tmp_path: Path, offline: None):
    changes, architecture, fold = SWITCHES[name]
    model = random_model(replace(BASE, **changes))
    export_model(model, Origin(), tmp_path / "out", torch.float32, fold)
    with torch.no_grad():
        ours = model(ids())
        for attention in ("sdpa", "eager"):
            theirs = loaded(tmp_path / "out", attn_implementation=attention)
            assert type(theirs).__name__ == f"{architecture}ForCausalLM"
            assert (theirs(ids()).logits - ours).abs().max() <= 1e-5
        assert ours.std() > 0.1
        greedy = theirs.generate(ids(10)[:1], max_new_tokens=20, do_sample=False, use_cache=True)[0, 10:].tolist()
    assert greedy == list(continuation(model, ids(10)[0].tolist(), 20, temperature=0))


@pytest.mark.parametrize("name", SWITCHES)
def test_read_back_it_is_the_same_bits(name: str, tmp_path: Path):
    changes, _, fold = SWITCHES[name]
    model = random_model(replace(BASE, **changes), torch.float64)
    export_model(model, Origin(), tmp_path / "a", torch.float64, fold)
    back = hf.load(tmp_path / "a", torch.float64)
    export_model(back, Origin(), tmp_path / "b", torch.float64, fold)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    with torch.no_grad():
        difference = (back(ids()) - model(ids())).abs().max().item()
    was_folded = fold and can_fold(model.config)
    assert difference <= (1e-12 if was_folded else 0)
    if not was_folded:
        state, own = back.state_dict(), model.state_dict()
        assert all(torch.equal(own[k], state[k]) for k in own)
        assert all(not state[k].any() for k in state.keys() - own.keys())  # biases that their architecture adds


def test_folding_is_exact_where_the_terms_are_idle(tmp_path: Path):
    """At the identity the folded model is the plain one, not only within rounding."""
    model = random_model(replace(BASE, series=2))
    plain = random_model(BASE)
    for i in range(BASE.depth):
        series = model.layers[i].mlp.series
        with torch.no_grad():
            series.scale.copy_(torch.cat([torch.ones(BASE.ffn), torch.zeros(BASE.ffn)]))
            series.shift.zero_()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".series." not in k})
    written = export_model(model, Origin(), tmp_path / "out", torch.float32)
    assert (written.ffn, written.mlp_bias, written.series) == (2 * BASE.ffn, True, 1)
    with torch.no_grad():
        assert (hf.load(tmp_path / "out")(ids()) - plain(ids())).abs().max() <= 1e-6


def test_a_tied_model_stores_one_matrix(tmp_path: Path, offline: None):
    export_model(random_model(replace(BASE, tied=True, shortcut=4)), Origin(), tmp_path / "out", torch.float32)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as f:
        assert "lm_head.weight" not in f.keys()  # noqa: SIM118 - not a dict
    theirs = loaded(tmp_path / "out")
    assert theirs.lm_head.weight is theirs.model.embed_tokens.weight


def test_custom_code_saves_and_trains(tmp_path: Path, offline: None):
    """What people do with a model in transformers: batches with padding, gradients, save_pretrained."""
    model = random_model(replace(BASE, **PI))
    export_model(model, Origin(), tmp_path / "out", torch.float32)
    theirs = loaded(tmp_path / "out")
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.int64), ids()], dim=1)
    mask = (torch.arange(43) >= 3).long().expand(2, -1)
    with torch.no_grad():
        shifted = theirs(padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits[:, 3:]
        assert (shifted - model(ids())).abs().max() <= 1e-5
    theirs(ids(), labels=ids()).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in theirs.parameters())
    theirs.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "modeling_tinydata.py").exists()
    with torch.no_grad():
        assert torch.equal(loaded(tmp_path / "again")(ids()).logits, theirs(ids()).logits)
        assert torch.equal(hf.load(tmp_path / "again")(ids()), model(ids()))


def test_what_the_layer_hands_on_reaches_llamas_attention(tmp_path: Path, offline: None, monkeypatch: Any):
    """transformers renames the cache now and then: code that had to know its name would lose the past with it."""
    from transformers.models.llama.modeling_llama import LlamaAttention

    got: list[Any] = []

    def renamed(self: Any, hidden_states: Any, name_of_tomorrow: Any = None) -> Any:
        got.append(name_of_tomorrow)
        return self.o_proj(self.q_proj(hidden_states)), None

    for changes in (PI, PI | {"qk_norm": True}):
        export_model(random_model(replace(BASE, **changes)), Origin(), tmp_path / f"out {len(got)}", torch.float32)
        attention = loaded(tmp_path / f"out {len(got)}").model.layers[0].self_attn
        with monkeypatch.context() as patch:
            patch.setattr(LlamaAttention, "forward", renamed)
            attention(hidden_states=torch.zeros(1, 2, BASE.width), name_of_tomorrow="the past")
            with pytest.raises(TypeError, match="name_of_yesterday"):
                attention(hidden_states=torch.zeros(1, 2, BASE.width), name_of_yesterday="the past")
    assert got == ["the past", "the past"]


def test_bfloat16_is_what_is_stored(tmp_path: Path):
    model = random_model(BASE)
    export_model(model, Origin(), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as f:
        assert {f.get_tensor(k).dtype for k in f.keys()} == {torch.bfloat16}  # noqa: SIM118 - not a dict
    back = hf.load(tmp_path / "out").state_dict()
    assert all(torch.equal(back[k], p.to(torch.bfloat16).float()) for k, p in model.state_dict().items())


TEXTS = ("The ferry leaves at 6:45, don't be late.", "Die Fähre – 渡船六点四十五分开\n\n  x\t= 1", "👍🏽 é")


@pytest.mark.parametrize("name", ["byte_bpe/gpt2", "byte_bpe/llama3", "spm/plain", "spm/prefix"])
def test_tokenizer_goes_along(name: str, request: pytest.FixtureRequest, tmp_path: Path, offline: None):
    fixture, _, folder = name.partition("/")
    tokenizer = read_tokenizer(request.getfixturevalue(fixture) / folder)
    model = random_model(replace(BASE, vocab=tokenizer.size))
    export_model(model, Origin(tokenizer=tokenizer), tmp_path / "out")
    assert read_tokenizer(tmp_path / "out").fingerprint == tokenizer.fingerprint
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos, tokenizer.eos)
    settings = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert (settings.bos_token_id, settings.eos_token_id) == (tokenizer.bos, tokenizer.eos)


FACTS = {
    "step": 20,
    "tokens": 20_480,
    "tokenizer": {"path": "/home/me/vocab", "family": "byte-level-bpe", "size": 97, "fingerprint": "0123abcd"},
    "data": {"directory": "/home/me/shards", "tokens": 31_000, "documents": 12},
    "train": {"data": "/home/me/shards", "preset": "tiny-1m", "lr": 0.003, "steps": 20, "init": ""},
}
LINES = [
    {"step": 10, "loss": 4.0, "bits_per_byte": 2.5},
    {"step": 20, "loss": 3.25, "bits_per_byte": 2.125},
    {"step": 20, "validation": {"loss": 3.5, "bits_per_byte": 2.25, "domains": {"a: b": {"bits_per_byte": 2.0}}}},
]
MANIFEST = {
    "eos": 2,
    "bos": -1,
    "domains": {"web | news": {"documents": 12, "tokens": 31_000}},
    "shards": [{"name": "shard-00000", "documents": 12, "tokens": 31_000}],
}


@pytest.mark.parametrize("changes", [{}, {"series": 2}, PI], ids=["plain", "folded", "custom"])
def test_model_card(changes: dict[str, Any], tmp_path: Path):
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with transformers")
    known = Origin(FACTS, None, MANIFEST, LINES)
    export_model(random_model(replace(BASE, **changes)), known, tmp_path / "model: 1")
    text = (tmp_path / "model: 1" / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    meta = yaml.safe_load(front)
    assert meta["pipeline_tag"] == "text-generation" and ("custom_code" in meta["tags"]) == (changes == PI)
    assert ("trust_remote_code" in body) == (changes == PI)
    for expected in ("3.2500", "2.1250", "2.2500", "0.003", "0123abcd", "web \\| news", "shard-00000", "20,480"):
        assert expected in body
    assert "/home/me" not in text and "4.0000" not in body
    facts = json.loads((tmp_path / "model: 1" / "tinydata.json").read_text())
    assert facts["data"]["directory"] == "shards" and facts["step"] == 20
    back = origin(tmp_path / "model: 1", facts, BASE.vocab)
    again = card.text(
        "model: 1",
        *(huggingface_architecture.read_config(tmp_path / "model: 1"),) * 2,
        torch.bfloat16,
        card.published(back),
    )
    assert again.split("## Metrics")[1] == text.split("## Metrics")[1]


def test_what_begins_a_document(byte_bpe: Path):
    """Where documents have no begin token, each begins after the end of the one before."""
    tokenizer = read_tokenizer(byte_bpe / "gpt2")
    assert (Origin({}, None, MANIFEST).bos, Origin({}, None, MANIFEST).eos) == (2, 2)
    assert Origin({}, tokenizer, MANIFEST | {"bos": 1}).bos == 1
    assert (Origin({}, tokenizer).bos, Origin({}, tokenizer).eos) == (None, tokenizer.eos)
    assert Origin(config={"bos_token_id": 5, "eos_token_id": [6, 7]}).eos == 6
    assert Origin().eos is Origin().bos is Origin().pad is None


def test_another_tokenizer_is_refused(byte_bpe: Path, spm: Path, tmp_path: Path):
    made = read_tokenizer(byte_bpe / "gpt2")
    facts = {"tokenizer": {"path": str(byte_bpe / "gpt2"), "family": made.family, "size": made.size}}
    facts["tokenizer"]["fingerprint"] = made.fingerprint
    known = origin(tmp_path, facts, made.size)
    assert known.tokenizer is not None and known.tokenizer.fingerprint == made.fingerprint
    with pytest.raises(TrainerError) as e:
        origin(tmp_path, facts, made.size, str(spm / "plain"))
    assert made.fingerprint in str(e.value) and read_tokenizer(spm / "plain").fingerprint in str(e.value)
    with pytest.raises(TrainerError, match="2,000 ids, but the model has only 97"):
        origin(tmp_path, {}, 97, str(spm / "plain"))
    with pytest.raises(TrainerError, match="no tokenizer was found"):
        origin(tmp_path, facts, made.size, str(tmp_path / "nowhere"))


def test_no_tokenizer_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert origin(tmp_path, FACTS, 97).tokenizer is None
    assert "no tokenizer was found at this path: /home/me/vocab" in capsys.readouterr().err


def test_an_existing_directory_is_left_alone(tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(TrainerError, match="already exists"):
        export_model(random_model(BASE), Origin(), tmp_path / "out")


_KILLED = """
import resource, signal, sys
from pathlib import Path
from trainer.export import export_model
from trainer.model.transformer import Model, ModelConfig
from trainer.training.origin import Origin
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
export_model(Model(ModelConfig(97, 32, 3, 4, 4, 8, 48)), Origin(), Path(sys.argv[1]))
"""


def test_killed_half_way(tmp_path: Path):
    """The weights are larger than a file may be, and the kernel kills the process."""
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "out")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    assert not (tmp_path / "out").exists()
    export_model(random_model(BASE), Origin(), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_failed_half_way_leaves_nothing(tmp_path: Path):
    """As above, but the writing fails: Python ignores the signal."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(Exception, match="File too large"):
            export_model(random_model(BASE), Origin(), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def run(program: Any, monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    program()


def test_command_lines(
    byte_bpe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    tokenizer = read_tokenizer(byte_bpe / "gpt2")
    model = random_model(replace(BASE, vocab=tokenizer.size, series=2))
    export_model(model, Origin(), tmp_path / "custom", torch.float32, fold=False)
    run(export.program, monkeypatch, tmp_path / "custom", "-o", tmp_path / "out", "--tokenizer", byte_bpe / "gpt2")
    said = capsys.readouterr().out
    assert "LlamaForCausalLM" in said and "FFN 48 -> 96" in said
    run(export.program, monkeypatch, tmp_path / "out", "-o", tmp_path / "again", "--no-fold")
    assert "LlamaForCausalLM" in capsys.readouterr().out
    assert read_tokenizer(tmp_path / "again").fingerprint == tokenizer.fingerprint
    weights = "model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (tmp_path / "again" / weights).read_bytes()
    run(export.program, monkeypatch, tmp_path / "custom", "-o", tmp_path / "code", "--no-fold")
    assert "trust_remote_code" in capsys.readouterr().out
    arguments = ("A fox", "--tokens", "12", "--temperature", "0")
    run(generate.program, monkeypatch, tmp_path / "out", *arguments)
    made = capsys.readouterr().out
    assert made.startswith("A fox") and len(tokenizer.encode(made)) > 5
    run(generate.program, monkeypatch, tmp_path / "again", *arguments)
    assert capsys.readouterr().out == made
    with pytest.raises(TrainerError, match="no tokenizer was found"):
        run(generate.program, monkeypatch, tmp_path / "code", "A")


def test_generate_draws_as_it_says():
    model = random_model(BASE)
    start = ids(6)[0].tolist()
    drawn = list(continuation(model, start, 30, seed=1))
    assert drawn == list(continuation(model, start, 30, seed=1)) != list(continuation(model, start, 30, seed=2))
    greedy = list(continuation(model, start, 70, temperature=0))
    assert len(greedy) == 70  # past seq_len
    assert list(continuation(model, start, 30, top_k=1, seed=5)) == greedy[:30]
    assert list(continuation(model, start, 70, temperature=0, eos=greedy[4])) == greedy[: greedy.index(greedy[4])]
    with torch.no_grad():
        likely = model(torch.tensor([start]))[0, -1].topk(3).indices.tolist()
    first = [next(continuation(model, start, 1, top_k=3, temperature=5.0, seed=s)) for s in range(40)]
    assert set(first) == set(likely)


def test_characters_are_not_cut(byte_bpe: Path):
    tokenizer = read_tokenizer(byte_bpe / "gpt2")
    text = "é 渡船 👍🏽 end"
    made = tokenizer.encode(text)
    parts = list(streamed(tokenizer.decode, made[:1], iter(made[1:])))
    assert "".join(parts) == text and not any("�" in p for p in parts)
    assert len(parts) > 3
    assert "".join(streamed(tokenizer.decode, [], iter(made[:-5]))).startswith("é 渡船")


def test_real_model_tells_its_story(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    source = shared / "models" / "stories260K" / "hf"
    run(generate.program, monkeypatch, source, "--temperature", "0", "--tokens", "30")
    story = capsys.readouterr().out
    assert story.startswith("Once upon a time, there was a little girl named Lily")
    run(export.program, monkeypatch, source, "-o", tmp_path / "out", "--dtype", "float32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    made = theirs.generate(torch.tensor([[1]]), max_new_tokens=30, do_sample=False)
    assert tokenizer.decode(made[0, 1:]).strip() == story.strip()


def test_a_run_and_one_of_its_checkpoints(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    train("run", "--steps", "4", "--save-every", "2", "--validate-every", "2", "--series", "2")
    exported = {"last": tmp_path / "run", "second": tmp_path / "run" / "checkpoints" / "step-00000002"}
    for name, source in exported.items():
        run(export.program, monkeypatch, source, "-o", tmp_path / name, "--dtype", "float32")
        facts = json.loads((tmp_path / name / "tinydata.json").read_text())
        steps = {"last": 4, "second": 2}[name]
        assert facts["step"] == facts["metrics"]["training"]["step"] == facts["metrics"]["held out"]["step"] == steps
        assert set(facts["data"]["domains"]) == {"code", "text"} and len(facts["data"]["shards"]) > 2
        assert read_tokenizer(tmp_path / name).fingerprint == facts["tokenizer"]["fingerprint"]
        assert str(tmp_path) not in (tmp_path / name / "README.md").read_text(encoding="utf-8")
        assert str(tmp_path) not in json.dumps(facts)
    model, facts = load_model(tmp_path / "run")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "last")
    assert theirs.config.eos_token_id == theirs.config.bos_token_id == read_tokenizer(tmp_path / "last").eos
    with torch.no_grad():
        assert (theirs(ids(32)).logits - model(ids(32))).abs().max() <= 1e-5
        assert not torch.equal(hf.load(tmp_path / "second")(ids(32)), hf.load(tmp_path / "last")(ids(32)))
    capsys.readouterr()
    said = []
    for place in (tmp_path / "run", tmp_path / "last"):
        run(generate.program, monkeypatch, place, "def ", "--temperature", "0", "--tokens", "8")
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[0].startswith("def ")
