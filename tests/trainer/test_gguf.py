"""An export in llama.cpp: converted by its script, the logits are the trainer's.

Runs where LLAMA_CPP names a checkout of llama.cpp and its Python binding (llama-cpp-python) is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tinydata[train]'")
if not os.environ.get("LLAMA_CPP"):
    pytest.skip("LLAMA_CPP does not name a checkout of llama.cpp", allow_module_level=True)
llama_cpp = pytest.importorskip("llama_cpp", reason="not installed: pip install llama-cpp-python")

from trainer.export import export_model
from trainer.huggingface.tokenizer import read_tokenizer
from trainer.model.transformer import Model, ModelConfig
from trainer.training.origin import Origin

CHECKOUT = Path(os.environ["LLAMA_CPP"])
TEXTS = ("The ferry leaves at 6:45, don't be late.", "Die Fähre – 渡船六点四十五分开\n\n  x\t= 1")
SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied, gqa": {"tied": True, "kv_heads": 2},
    "qk_norm": {"qk_norm": True},
    "qkv_bias": {"qkv_bias": True},
    "all biases": {"qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "out_bias": {"out_bias": True},
    "folded": {"series": 2},
    "odd heads": {"heads": 3, "kv_heads": 3},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
}


def converted(directory: Path, kind: str) -> Path:
    out = directory.with_suffix(f".{kind}.gguf")
    script = [sys.executable, str(CHECKOUT / "convert_hf_to_gguf.py")]
    path = os.pathsep.join([str(CHECKOUT / "gguf-py"), os.environ.get("PYTHONPATH", "")])
    command = [*script, str(directory), "--outfile", str(out), "--outtype", kind]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.parametrize("name", SWITCHES)
def test_logits(name: str, spm: Path, tmp_path: Path):
    tokenizer = read_tokenizer(spm / "prefix")
    config = ModelConfig(vocab=2_000, width=64, depth=3, heads=4, kv_heads=4, head_dim=16, ffn=256, seq_len=256)
    torch.manual_seed(5)
    model = Model(replace(config, **SWITCHES[name]))
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.normal_(mean=float("norm" in key), std=0.15)
    export_model(model, Origin(tokenizer=tokenizer), tmp_path / "out", torch.float32)
    cache = {"type_k": 0, "type_v": 0, "flash_attn": False}  # float32; by itself the cache is float16
    theirs = llama_cpp.Llama(
        str(converted(tmp_path / "out", "f32")), n_ctx=256, logits_all=True, verbose=False, **cache
    )
    ids = torch.randint(3, 2_000, (1, 60))
    theirs.eval(ids[0].tolist())
    with torch.no_grad():
        difference = (torch.from_numpy(theirs.scores[:60]) - model(ids)[0]).abs().max().item()
    assert difference <= 1e-4
    for text in TEXTS:
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text)
