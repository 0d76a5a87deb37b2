"""What transformers writes is read here with the same logits; what cannot be read says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tinydata[train]'")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'tinydata[dev]'")

from safetensors.torch import load_file, save_file

from trainer.errors import TrainerError
from trainer.huggingface import architecture
from trainer.huggingface import weights as hf
from trainer.huggingface.architecture import read_config
from trainer.model.transformer import ModelConfig

SHAPE = {
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 32}
MODELS = {
    "llama": ("Llama", {}),
    "llama gqa": ("Llama", {"num_key_value_heads": 2}),
    "llama tied": ("Llama", {"tie_word_embeddings": True}),
    "llama attention_bias": ("Llama", {"attention_bias": True}),
    "llama mlp_bias": ("Llama", {"mlp_bias": True}),
    "llama 3": ("Llama", {"rope_parameters": LLAMA3 | {"rope_theta": 500_000.0}}),
    "llama linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}}),
    "llama head_dim": ("Llama", {"head_dim": 16}),
    "mistral": ("Mistral", {"num_key_value_heads": 2, "sliding_window": 64}),
    "mistral odd heads": ("Mistral", {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 8}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
    "qwen3 tied": ("Qwen3", {"head_dim": 8, "tie_word_embeddings": True, "attention_bias": True}),
}


def random_model(name: str) -> Any:
    family, changes = MODELS[name]
    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(**SHAPE | changes)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for p in model.parameters():  # biases and norms too: at their initial values they hide mistakes
            p.normal_(std=0.3)
    return model


def logits_differ(theirs: Any, directory: Path, length: int = 48) -> float:
    ids = torch.randint(0, SHAPE["vocab_size"], (2, length), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return (hf.load(directory)(ids) - theirs(ids).logits).abs().max().item()


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path):
    model = random_model(name)
    model.save_pretrained(tmp_path)
    assert logits_differ(model, tmp_path) <= 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_out_and_in_again_is_the_same_bits(name: str, tmp_path: Path):
    random_model(name).save_pretrained(tmp_path / "theirs")
    model = hf.load(tmp_path / "theirs")
    hf.save(tmp_path / "ours", model.config, iter(model.state_dict().items()), torch.float32)
    (tmp_path / "ours" / "config.json").write_text(json.dumps(architecture.config_json(model.config, torch.float32)))
    there = load_file(tmp_path / "theirs" / "model.safetensors")
    again = load_file(tmp_path / "ours" / "model.safetensors")
    assert there.keys() == again.keys() and all(torch.equal(there[k], again[k]) for k in there)
    assert read_config(tmp_path / "ours") == model.config
    assert (tmp_path / "ours" / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = random_model("llama gqa")
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    assert logits_differ(model, tmp_path / "theirs") <= 1e-5
    monkeypatch.setattr(hf, "SHARD_BYTES", 20_000)
    ours = hf.load(tmp_path / "theirs")
    hf.save(tmp_path / "ours", ours.config, iter(ours.state_dict().items()), torch.float32)
    (tmp_path / "ours" / "config.json").write_text(json.dumps(architecture.config_json(ours.config, torch.float32)))
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert logits_differ(back, tmp_path / "theirs") <= 1e-5


def packed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: int, head_dim: int) -> torch.Tensor:
    """InternLM2's layout: rows of (group, its queries + key + value, head_dim)."""
    parts = [x.view(groups, -1, head_dim, *x.shape[1:]) for x in (q, k, v)]
    return torch.cat(parts, dim=1).flatten(0, 2)


@pytest.mark.parametrize("name", ["llama", "llama gqa", "llama attention_bias"])
def test_internlm2_packs_qkv(name: str, tmp_path: Path):
    model = random_model(name)
    c, state, out = model.config, model.state_dict(), {}
    names = {"self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3"}
    names |= {"mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm", "embed_tokens": "tok_embeddings"}
    names |= {"post_attention_layernorm": "ffn_norm", "lm_head": "output"}
    for key, tensor in state.items():
        if ".q_proj." in key:
            qkv = [state[key.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")]
            tensor = packed(*qkv, groups=c.num_key_value_heads, head_dim=c.head_dim)
            out[key.replace("self_attn.q_proj", "attention.wqkv")] = tensor
        elif ".k_proj." not in key and ".v_proj." not in key:
            for ours, theirs in names.items():
                key = key.replace(ours, theirs)
            out[key] = tensor.clone()
    save_file(out, tmp_path / "model.safetensors")
    config = SHAPE | {"model_type": "internlm2", "bias": c.attention_bias, "hidden_act": "silu", "rope_theta": 10_000}
    config |= {"num_key_value_heads": c.num_key_value_heads, "rms_norm_eps": c.rms_norm_eps}
    config |= {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert logits_differ(model, tmp_path) <= 1e-5


def test_a_window_that_is_never_full(tmp_path: Path):
    """Within its sliding window Mistral is a Llama: the model is read as one of that length."""
    random_model("mistral").save_pretrained(tmp_path)
    assert read_config(tmp_path).seq_len == 64


def test_real_model_gives_its_logits(shared: Path):
    directory = shared / "models" / "stories260K"
    expected = json.loads((directory / "expected_logits.json").read_text())
    with torch.no_grad():
        logits = hf.load(directory / "hf")(torch.tensor([expected["input_ids"]]))[0, -1]
    assert (logits - torch.tensor(expected["logits_last"])).abs().max() <= 2e-5  # written with five decimals


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    random_model("llama").save_pretrained(tmp_path)
    return tmp_path


def changed(directory: Path, **keys: Any) -> Path:
    config = json.loads((directory / "config.json").read_text()) | keys
    (directory / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    return directory


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "gpt2"}, "models of type 'gpt2' are not supported"),
        ({"hidden_act": "gelu"}, "the activation gelu is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "RoPE scaling 'yarn'"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "only 50% of each head"),
        ({"hidden_size": ...}, "'hidden_size' is missing"),
        ({"num_hidden_layers": 4}, "layers.3.*is missing, and 8 more"),
        ({"num_hidden_layers": 2}, "layers.2.* does not belong to this model, and 8 more"),
        (
            {"intermediate_size": 96},
            r"mlp.gate_proj.weight has the shape \[80, 32\], but config.json requires \[96, 32\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(directory: Path, keys: dict[str, Any], message: str):
    with pytest.raises(TrainerError, match=message):
        hf.load(changed(directory, **keys))


def test_a_head_that_is_missing_is_not_the_embedding(directory: Path):
    weights = load_file(directory / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, directory / "model.safetensors")
    with pytest.raises(TrainerError, match=r"lm_head\.weight is missing"):
        hf.load(directory)
    assert hf.load(changed(directory, tie_word_embeddings=True)).lm_head is None


def test_half_a_download(tmp_path: Path):
    random_model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
    second.unlink()
    with pytest.raises(TrainerError, match=f"{second.name} is missing"):
        hf.load(tmp_path)
    second.write_bytes(first.read_bytes()[:100])
    with pytest.raises(TrainerError, match=f"{second.name} cannot be read"):
        hf.load(tmp_path)


def test_pickles_are_not_opened(directory: Path):
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    with pytest.raises(TrainerError, match="the safetensors files are missing") as e:
        hf.load(directory)
    assert "pickled .bin files are not opened" in str(e.value)


def test_no_directory(tmp_path: Path):
    with pytest.raises(TrainerError, match=r"config\.json is missing or cannot be read"):
        hf.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(TrainerError, match=r"config\.json is missing or cannot be read"):
        hf.load(tmp_path)


def test_keys_of_older_transformers(directory: Path):
    old = {"rope_parameters": ..., "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    config = read_config(changed(directory, **old))
    assert config.rope_theta == 5e5 and config.rope_scaling == {"rope_type": "linear", "factor": 2.0}
    assert isinstance(config, ModelConfig)
