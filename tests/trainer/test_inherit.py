"""What is cut out of a big model computes what the big one computes without the units that went."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'tinydata[train]'")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.trainer.processes import completed, environment
from trainer import inherit
from trainer.errors import TrainerError
from trainer.huggingface import architecture
from trainer.huggingface import weights as hf
from trainer.inherit import InheritConfig
from trainer.inheritance import learned_mask as masks
from trainer.inheritance import rescale as corrections
from trainer.inheritance import selection as slicing
from trainer.inheritance.importance import METHODS
from trainer.inheritance.report import Report
from trainer.inheritance.source import SITES, Source, layer_passes, source_loss
from trainer.model.transformer import Model, ModelConfig

BIG = ModelConfig(512, 48, 6, 6, 3, 8, 64, seq_len=64)
FAMILIES = {
    "llama": BIG,
    "tied": replace(BIG, tied=True),
    "qwen2": replace(BIG, qkv_bias=True),
    "qwen3": replace(BIG, qk_norm=True),
    "π": replace(BIG, series=2, shortcut=8),
    "biases": replace(BIG, qkv_bias=True, out_bias=True, mlp_bias=True),
}
AXES = {
    "hidden": {"width": 32},
    "heads": {"heads": 3},  # one of the two in each group
    "groups": {"heads": 4, "kv_heads": 2},
    "ffn": {"ffn": 40},
    "layers": {"depth": 4},
    "all": {"width": 32, "heads": 2, "kv_heads": 2, "ffn": 40, "depth": 4},
}


def write(directory: Path, c: ModelConfig, dtype: torch.dtype = torch.float32, weights: Model | None = None) -> Path:
    """A model with nothing at its initial value: what is initial hides mistakes."""
    model = weights or Model(c)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, p in [] if weights else model.named_parameters():
            p.normal_(std=0.1).add_(1.0 if "norm" in name or name.endswith("scale") else 0.0)
            if "shortcut" in name or "proj" in name:
                p.mul_(torch.rand(len(p)).unsqueeze(1) * 2 if p.dim() > 1 else 1.0)
    hf.save(directory, c, iter(model.state_dict().items()), dtype)
    (directory / "config.json").write_text(json.dumps(architecture.config_json(c, dtype)))
    return directory


def target(directory: Path, c: ModelConfig) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(architecture.config_json(c, torch.float32)))
    return str(directory)


@pytest.fixture(scope="session")
def ids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 4,000 ids below 512; what a tokenizer would have made of anything."""
    out = tmp_path_factory.mktemp("ids")
    tokens = np.random.default_rng(0).integers(0, 512, 4000).astype(np.uint16)
    tokens.tofile(out / "shard-00000.bin")
    tokenizer = {"path": "", "family": "byte-level BPE", "size": 512, "fingerprint": "0" * 32}
    shards = [{"name": "shard-00000", "documents": 1, "tokens": len(tokens)}]
    manifest = {"verb": "encode", "dtype": "uint16", "tokenizer": tokenizer, "shards": shards, "files": {}}
    (out / "manifest.json").write_text(json.dumps(manifest | {"totals": {"tokens": len(tokens)}}))
    return out


@pytest.fixture
def data(ids: Path) -> dict[str, Any]:
    return {"data": str(ids), "samples": 4, "seq_len": 32, "mask_steps": 5, "device": "cpu"}


@pytest.fixture
def cut(tmp_path: Path) -> Any:
    """cut(source, target's configuration, options…) -> the report, the model that was written."""
    counter = iter(range(100))

    def run(source: Path, c: ModelConfig | str, **options: Any) -> tuple[Report, Model]:
        out = tmp_path / f"init{next(counter)}"
        where = c if isinstance(c, str) else target(tmp_path / f"target {out.name}", c)
        report = inherit.inherit(InheritConfig(str(source), where, str(out), **{"rescale": "none", **options}))
        return report, hf.load(out)

    return run


@contextmanager
def zeroed(big: Model, report: Report) -> Iterator[None]:
    """The large model with only the kept layers, removed units times 0, and norms over the kept dimensions."""
    selection, c = report.selection, big.config
    keep = torch.zeros(c.width).index_fill(0, selection.hidden, 1.0)
    big.layers = torch.nn.ModuleList(big.layers[i] for i in selection.layers)
    for name, module in big.named_modules():
        if name.endswith("layernorm") or name == "norm":
            factor = report.norms.get(f"{name}.weight", 1.0)

            def over_kept(m: Any, args: Any, out: Any, factor: float = factor) -> Tensor:
                x = args[0][..., selection.hidden]
                rms = (x.square().mean(-1, keepdim=True) + m.eps).sqrt()
                return args[0] / rms * m.weight * keep * factor

            module.register_forward_hook(over_kept)
    with torch.no_grad():
        big.embed_tokens.weight.mul_(keep)
    for layer, units in zip(big.layers, selection.units, strict=True):
        for axis, site in SITES.items():
            if axis in units:
                index = slicing.expand(units[axis], c.head_dim if axis == "heads" else 1)
                projection = layer.get_submodule(site)
                with torch.no_grad():
                    gone = torch.ones(projection.in_features).index_fill(0, index, 0.0).bool()
                    projection.weight[:, gone] = 0
                    projection.weight.mul_(keep.unsqueeze(1))
                    if projection.bias is not None:
                        projection.bias.mul_(keep)
    yield


IDS = torch.randint(0, 512, (2, 24), generator=torch.Generator().manual_seed(5))


def same_as_zeroed(source: Path, report: Report, small: Model) -> bool:
    big = hf.load(source)
    with torch.no_grad(), zeroed(big, report):
        expected, found = big(IDS), small(IDS)
    return bool((expected - found).abs().max() <= 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_everything_is_bit_equal(family: str, tmp_path: Path, cut: Any, data: dict[str, Any]):
    c = FAMILIES[family]
    source = write(tmp_path / "big", c, torch.bfloat16)
    for rescale in ("none", "std", "lstsq"):
        cut(source, c, method="l2", rescale=rescale, **data)
        out = sorted(tmp_path.glob("init*[0-9]"))[-1]
        there, here = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
        assert there.keys() == here.keys()
        assert all(torch.equal(t, here[n]) and t.dtype == here[n].dtype for n, t in there.items())


# scores differ by method and what is cut by axis; only a mask is learned for the axes that are asked for
@pytest.mark.parametrize(
    ("method", "axis"), [*((m, "all") for m in METHODS), *((m, a) for m in ("l2", "mask") for a in AXES if a != "all")]
)
def test_masked_equals_sliced(method: str, axis: str, tmp_path: Path, cut: Any, data: dict[str, Any]):
    source = write(tmp_path / "big", BIG)
    wanted = replace(BIG, **AXES[axis])
    report, small = cut(source, wanted, method=method, **data)
    assert small.config == wanted  # the shape is hit exactly, by a learned mask too
    assert same_as_zeroed(source, report, small)


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_equals_sliced_in_every_family(family: str, tmp_path: Path, cut: Any, data: dict[str, Any]):
    source = write(tmp_path / "big", FAMILIES[family])
    for method in ("l1", "taylor"):
        report, small = cut(source, replace(FAMILIES[family], **AXES["all"]), method=method, **data)
        assert same_as_zeroed(source, report, small)


def test_factors_of_training_are_the_zeros_of_the_cut(tmp_path: Path, cut: Any):
    """The masks at z in {0, 1} are the sliced model: what Taylor scores and the mask learns is what is cut."""
    source = write(tmp_path / "big", FAMILIES["π"])
    wanted = replace(FAMILIES["π"], width=32, heads=4, kv_heads=2, ffn=40)
    report, _ = cut(source, wanted, method="random")
    selection, big = report.selection, hf.load(source)
    hidden = torch.zeros(48).index_fill(0, selection.hidden, 1.0)
    sizes = {"heads": 6, "ffn": 64, "shortcut": 6}
    units = [{a: torch.zeros(n).index_fill(0, u[a], 1.0) for a, n in sizes.items()} for u in selection.units]
    tensors = slicing.sliced(Source.open(source), wanted, selection, slicing.Corrections())
    small = Model(wanted)
    small.load_state_dict(dict(tensors))
    with torch.no_grad(), masks.masked(big, hidden, units):
        found = big(IDS)
    assert (found - small(IDS)).abs().max() <= 1e-5 * found.abs().max()


def test_heads_stay_in_their_groups(tmp_path: Path, cut: Any, data: dict[str, Any]):
    source = write(tmp_path / "big", replace(BIG, heads=12, kv_heads=3, head_dim=4))
    for method in METHODS:
        report, _ = cut(source, replace(BIG, heads=4, kv_heads=2, head_dim=4), method=method, **data)
        for units in report.selection.units:
            groups = units["groups"].tolist()
            assert [h // 4 for h in units["heads"].tolist()] == [groups[0]] * 2 + [groups[1]] * 2
            assert units["heads"].tolist() == sorted(set(units["heads"].tolist()))


def test_l1_and_l2_are_norms_of_a_unit(tmp_path: Path, cut: Any):
    """One unit of each axis is made the largest; it stays when only it may."""
    model = hf.load(write(tmp_path / "first", BIG))
    with torch.no_grad():
        for layer in model.layers:
            layer.mlp.down_proj.weight[:, 17] += 9
            layer.self_attn.q_proj.weight[8 * 5 : 8 * 6] += 9  # head 5, of group 2
        model.embed_tokens.weight[:, 31] += 9
    source = write(tmp_path / "big", BIG, weights=model)
    for method in ("l1", "l2"):
        report, _ = cut(source, replace(BIG, width=1, heads=1, kv_heads=1, ffn=1), method=method)
        assert report.selection.hidden.tolist() == [31]
        assert all([u[a].item() for a in ("heads", "groups", "ffn")] == [5, 2, 17] for u in report.selection.units)


def test_taylor_is_the_sum_of_weight_times_gradient(tmp_path: Path):
    model = hf.load(write(tmp_path / "big", BIG)).requires_grad_(False)
    tokens, targets = IDS[:1], IDS[1:]
    scores = masks.taylor(model, tokens, targets, "cpu")
    model.requires_grad_(True)
    model(tokens, targets)[0].backward()
    for layer, units in zip(model.layers, scores.layers, strict=True):
        weight = layer.mlp.down_proj.weight
        expected = (weight * weight.grad).sum(0).abs()
        assert torch.allclose(units["ffn"], expected, rtol=1e-3, atol=1e-4 * expected.max().item())


def test_same_seed_same_indices(tmp_path: Path, cut: Any, data: dict[str, Any]):
    source = write(tmp_path / "big", BIG)
    wanted = replace(BIG, **AXES["all"])
    for method in ("random", "mask"):
        first, again, other = (cut(source, wanted, method=method, seed=s, **data)[0] for s in (1, 1, 2))
        assert first.json()["kept"] == again.json()["kept"] != other.json()["kept"]


# -- layers -----------------------------------------------------------------------------------


def test_layers(tmp_path: Path, cut: Any):
    source = write(tmp_path / "big", replace(BIG, depth=12))
    kept = {how: cut(source, replace(BIG, depth=8), layers=how)[0].selection.layers for how in ("ends", "uniform")}
    assert kept == {"ends": [0, 1, 2, 4, 7, 9, 10, 11], "uniform": [0, 2, 3, 5, 6, 8, 9, 11]}
    report, small = cut(source, replace(BIG, depth=3), layers="0,4,11")
    assert report.selection.layers == [0, 4, 11]
    assert torch.equal(small.layers[1].mlp.up_proj.weight, hf.load(source).layers[4].mlp.up_proj.weight)
    for wrong in ("0,4", "0,4,4", "0,4,12", "4,0,5", "first"):
        with pytest.raises(TrainerError):
            cut(source, replace(BIG, depth=3), layers=wrong)
    with pytest.raises(TrainerError, match="does not give 12 different layers"):
        cut(source, replace(BIG, depth=12), layers="0,1")


def test_block_influence_drops_what_does_nothing(tmp_path: Path, cut: Any, data: dict[str, Any]):
    model = hf.load(write(tmp_path / "first", BIG))
    with torch.no_grad():
        for i in (2, 3):  # they add nothing to the residual
            model.layers[i].self_attn.o_proj.weight.zero_()
            model.layers[i].mlp.down_proj.weight.zero_()
    report, small = cut(write(tmp_path / "big", BIG, weights=model), replace(BIG, depth=4), layers="bi", **data)
    assert report.selection.layers == [0, 1, 4, 5]
    assert (small(IDS) - model(IDS)).abs().max() <= 1e-4
    assert report.losses["inherited"] == pytest.approx(report.losses["source"], abs=1e-4)


# -- corrections ----------------------------------------------------------------------------------


def test_norms_keep_their_scale(tmp_path: Path, cut: Any, data: dict[str, Any]):
    """Half the residual is ten times as large: without it the rest would come out of a norm far too large."""
    model = hf.load(write(tmp_path / "first", BIG))
    with torch.no_grad():
        model.embed_tokens.weight[:, :24] *= 10
        for layer in model.layers:
            for p in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                p[:24] *= 10
    source = write(tmp_path / "big", BIG, weights=model)
    report, _ = cut(source, replace(BIG, width=24), method="l2", **data)
    estimated, _ = cut(source, replace(BIG, width=24), method="l2")
    assert report.selection.hidden.tolist() == list(range(24))
    assert report.norms.keys() == estimated.norms.keys() and len(report.norms) == 13
    for r in (report, estimated):  # rms over the large half / over all: sqrt(100 / 50.5)
        assert all(abs(f - 1.407) < 0.01 for f in r.norms.values())


def test_least_squares_is_nearer_than_a_bare_cut():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 12, generator=generator) @ torch.randn(12, 32, generator=generator)  # 12 degrees of freedom
    weight, kept = torch.randn(8, 32, generator=generator), torch.arange(0, 32, 2)
    fitted = corrections.fit(weight, x.T @ x, kept).float()
    whole = x @ weight.T
    left = (whole - x[:, kept] @ fitted.T).square().mean() / whole.square().mean()
    bare = (whole - x[:, kept] @ weight[:, kept].T).square().mean() / whole.square().mean()
    assert left < 0.02 < 0.2 < bare


@pytest.mark.parametrize("axis", ["ffn", "heads", "groups"])
def test_a_fitted_layer_is_nearer_to_the_source(axis: str, tmp_path: Path, cut: Any, data: dict[str, Any]):
    source, wanted = write(tmp_path / "big", BIG), replace(BIG, **AXES[axis])
    calibration = inherit.calibration(InheritConfig(str(source), "", "", **data), Source.open(source))
    assert calibration is not None
    layer_pass = next(layer_passes(Source.open(source), calibration.fit))
    (x,), error = layer_pass.inputs, {}
    for rescale in ("none", "lstsq"):
        _, small = cut(source, wanted, rescale=rescale, **data)
        with torch.no_grad():
            there, here = (
                layer_pass.layer(x, layer_pass.cos, layer_pass.sin),
                small.layers[0](x, layer_pass.cos, layer_pass.sin),
            )
        error[rescale] = (there - here).square().mean().item()
    assert error["lstsq"] < 0.9 * error["none"]


def test_variance_is_kept_by_the_number_of_terms(tmp_path: Path, cut: Any):
    source = write(tmp_path / "big", BIG)
    wanted = replace(BIG, heads=3, ffn=16)
    bare, spread = (cut(source, wanted, method="uniform", rescale=r)[1] for r in ("none", "std"))
    for layer, wide in zip(bare.layers, spread.layers, strict=True):
        assert torch.allclose(wide.mlp.down_proj.weight, 2 * layer.mlp.down_proj.weight)
        assert torch.allclose(wide.self_attn.o_proj.weight, 2**0.5 * layer.self_attn.o_proj.weight)


# -- vocabulary, ties, new parts --------------------------------------------------------------


def vocabulary(directory: Path) -> Path:
    """512 ids -> 6: old 7, 3, 511, 0 under new ids 1, 0, 3, 5; ids 2 and 4 learned."""
    directory.mkdir()
    new = {7: 1, 3: 0, 511: 3, 0: 5}
    rows = [{"old_id": i, "kept": i in new, "parts": [new.get(i, 1)]} for i in range(512)]
    pq.write_table(pa.Table.from_pylist(rows), directory / "idmap.parquet")
    learned = [{"new_id": 2, "left": 0, "right": 1, "old_parts": [3, 7]}]
    learned.append({"new_id": 4, "left": 1, "right": 1, "old_parts": [8, 9, 9]})
    pq.write_table(pa.Table.from_pylist(learned), directory / "learned.parquet")
    return directory


def test_vocabulary(tmp_path: Path, cut: Any):
    source = write(tmp_path / "big", BIG)
    config = json.loads((source / "config.json").read_text()) | {"bos_token_id": 8, "eos_token_id": [511, 7]}
    (source / "config.json").write_text(json.dumps(config))
    vocab = vocabulary(tmp_path / "vocab")
    report, small = cut(source, replace(BIG, vocab=6), vocab=str(vocab))
    written = json.loads((tmp_path / "init0" / "config.json").read_text())
    assert (written["bos_token_id"], written["eos_token_id"]) == (None, 3)
    big = hf.load(source)
    for old, new in ((big.embed_tokens.weight, small.embed_tokens.weight), (big.lm_head.weight, small.lm_head.weight)):
        assert torch.equal(new[[0, 1, 3, 5]], old[[3, 7, 511, 0]])
        assert torch.allclose(new[2], (old[3] + old[7]) / 2)
        assert torch.allclose(new[4], (old[8] + 2 * old[9]) / 3)
    assert report.vocabulary == {"ids": 6, "of": 512, "own row": 4, "mean of rows": 2, "rows per mean": 2.5}
    kept = torch.tensor([[0, 1, 3, 5, 1]])
    assert torch.allclose(small(kept)[..., 3], big(torch.tensor([[3, 7, 511, 0, 7]]))[..., 511], atol=1e-4)
    (vocab / "learned.parquet").unlink()
    with pytest.raises(TrainerError, match="4 kept and 0 learned"):
        cut(source, replace(BIG, vocab=6), vocab=str(vocab))


def test_ties_are_said(tmp_path: Path, cut: Any):
    source = write(tmp_path / "big", BIG)
    big = hf.load(source)
    with pytest.raises(TrainerError, match="--tie embedding"):
        cut(source, replace(BIG, tied=True))
    rows = {"embedding": big.embed_tokens.weight, "head": big.lm_head.weight}
    rows["mean"] = (rows["embedding"] + rows["head"]) / 2
    for tie, expected in rows.items():
        report, small = cut(source, BIG, tie=tie)
        assert small.config.tied and small.lm_head is None
        assert torch.allclose(small.embed_tokens.weight, expected)
        assert tie in report.tied
    tied = write(tmp_path / "tied", FAMILIES["tied"])
    report, small = cut(tied, FAMILIES["tied"], untie=True)
    assert torch.equal(small.embed_tokens.weight, small.lm_head.weight)
    assert torch.equal(small(IDS), hf.load(tied)(IDS))


@pytest.mark.parametrize("family", ["llama", "tied", "π"])
def test_parts_of_pi_start_as_the_identity(family: str, tmp_path: Path, cut: Any):
    source = write(tmp_path / "big", FAMILIES[family])
    wanted = replace(FAMILIES[family], series=3, shortcut=8)
    _, small = cut(source, wanted)
    assert small.config == wanted
    assert torch.equal(small(IDS), hf.load(source)(IDS))


def test_internlm2_gives_what_its_llama_gives(tmp_path: Path, cut: Any, data: dict[str, Any]):
    llama = write(tmp_path / "llama", BIG)
    packed = tmp_path / "internlm2"
    packed.mkdir()
    out: dict[str, Tensor] = {}
    names = {"self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3"}
    names |= {"mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm", "lm_head": "output"}
    names |= {"post_attention_layernorm": "ffn_norm", "embed_tokens": "tok_embeddings"}
    there = load_file(llama / "model.safetensors")
    for key, tensor in there.items():
        if ".q_proj." in key:
            qkv = (there[key.replace("q_proj", p)].view(3, -1, 8, 48) for p in ("q_proj", "k_proj", "v_proj"))
            out[key.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat([*qkv], 1).flatten(0, 2)
        elif ".k_proj." not in key and ".v_proj." not in key:
            for ours, theirs in names.items():
                key = key.replace(ours, theirs)
            out[key] = tensor
    save_file(out, packed / "model.safetensors")
    config = json.loads((llama / "config.json").read_text()) | {"model_type": "internlm2", "bias": False}
    (packed / "config.json").write_text(json.dumps(config))
    wanted = replace(BIG, **AXES["all"])
    for method in ("l2", "activation"):
        (first, a), (second, b) = (cut(s, wanted, method=method, **data) for s in (llama, packed))
        assert first.json()["kept"] == second.json()["kept"]
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


# -- what is refused, what it costs, the program ----------------------------------------------

REFUSED = {
    "larger": (replace(BIG, ffn=128), {}, "ffn 128 > 64"),
    "deeper": (replace(BIG, depth=7), {}, "layers 7 > 6"),
    "more heads in a group": (replace(BIG, heads=4, kv_heads=1), {}, "heads per key-value group 4 > 2"),
    "heads of another size": (replace(BIG, head_dim=4, heads=4, kv_heads=4), {}, "heads of 4 .* heads of 8"),
    "other positions": (replace(BIG, rope_theta=5e5), {}, "rope_theta 500000"),
    "other ids": (replace(BIG, vocab=300), {}, "300 ids, but the source has 512"),
    "no data": (BIG, {"method": "taylor"}, "--method taylor needs data"),
    "no data for layers": (BIG, {"layers": "bi"}, "--layers bi needs data"),
    "no data to fit": (BIG, {"rescale": "lstsq"}, "--rescale lstsq needs data"),
    "preset's heads": ("tiny-1m", {"width": 32, "expand": 2.0}, "heads of 32 .* heads of 8"),
    "wider": ("pi-1b", {}, "layers 12 > 6; width 2,048 > 48"),
    "no target": ("small", {}, "neither a preset nor"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, tmp_path: Path, cut: Any):
    c, options, message = REFUSED[what]
    with pytest.raises(TrainerError, match=message):
        cut(write(tmp_path / "big", BIG), c, **options)
    assert {p.name for p in tmp_path.iterdir()} <= {"big", "target init0"}


def test_data_of_another_vocabulary(tmp_path: Path, ids: Path):
    source = write(tmp_path / "big", replace(BIG, vocab=100))
    with pytest.raises(TrainerError, match="different vocabulary"):
        inherit.inherit(InheritConfig(str(source), str(source), str(tmp_path / "init"), data=str(ids)))


def test_losses_are_the_models_own(tmp_path: Path, cut: Any, data: dict[str, Any]):
    source = write(tmp_path / "big", BIG)
    report, small = cut(source, replace(BIG, **AXES["all"]), **data)
    held = inherit.calibration(InheritConfig(str(source), "", "", **data), Source.open(source))
    assert held is not None
    loss, _, n = hf.load(source)(held.held_out, held.held_out_targets)
    assert report.losses["source"] == pytest.approx((loss / n).item(), rel=1e-5)
    assert source_loss(Source.open(source), held.held_out, held.held_out_targets) == report.losses["source"]
    loss, _, n = small(held.held_out, held.held_out_targets)
    assert report.losses["inherited"] == pytest.approx((loss / n).item(), rel=1e-5)
    assert not {tuple(x) for x in held.fit.tolist()} & {tuple(x) for x in held.held_out.tolist()}


def meta(c: ModelConfig) -> list[tuple[str, Tensor]]:
    with torch.device("meta"):
        return list(Model(c).state_dict().items())


@pytest.mark.slow
def test_one_tensor_in_memory(tmp_path: Path):
    """A source of 428 MB, its largest tensor 4 MB: the process that cuts it grows by far less."""
    c = ModelConfig(2048, 512, 40, 8, 8, 64, 1024, seq_len=64)
    source = tmp_path / "big"
    hf.save(source, c, ((n, torch.rand(t.shape)) for n, t in meta(c)), torch.float32)
    (source / "config.json").write_text(json.dumps(architecture.config_json(c, torch.float32)))
    size = (source / "model.safetensors").stat().st_size
    program = """
import resource, sys
from trainer.inherit import InheritConfig, inherit
import trainer.inheritance.importance, torch
torch.ones(64, 64) @ torch.ones(64, 64)
peak = lambda: int(next(x for x in open("/proc/self/status") if x.startswith("RssAnon")).split()[1]) << 10
import threading, time
start, most = peak(), [0]
def watch():
    while True:
        most[0] = max(most[0], peak()); time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
inherit(InheritConfig(sys.argv[1], "tiny-1m", sys.argv[2], method="l2", width=128, heads=2, tie="embedding", depth=2))
print(most[0] - start)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, source, tmp_path / "init"], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 0.25 * size


def test_the_program(tmp_path: Path, shards: Path, byte_bpe: Path):
    """SOURCE TARGET -o init, and training continues from there."""
    tokenizer = json.loads((shards / "manifest.json").read_text())["tokenizer"]
    source = write(tmp_path / "big", replace(BIG, vocab=tokenizer["size"], head_dim=32, heads=4, kv_heads=2, ffn=512))
    for file in (byte_bpe / "gpt2").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    init = tmp_path / "init"
    line = [source, "tiny-1m", "-o", init, "--width", "32", "--heads", "1", "--depth", "2"]
    line += ["--tie", "head", "--method", "taylor", "--data", shards, "--seq-len", "32", "--samples", "8"]
    line += ["--series", "2", "--shortcut", "8", "--device", "cpu"]
    done = completed("trainer.inherit", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in ("layers                    6 ->         2", "the source's head", "starts without effect", "inherited"):
        assert said in done.stdout
    facts = json.loads((init / "tinydata.json").read_text())
    assert facts["tokenizer"]["fingerprint"] == tokenizer["fingerprint"]
    assert {"config.json", "model.safetensors", "modeling_tinydata.py", "tokenizer.json"} <= {
        p.name for p in init.iterdir()
    }
    report = json.loads((init / "inherit.json").read_text())
    assert report["kept"]["layers"] == [0, 5] and len(report["kept"]["hidden"]) == 32
    again = completed("trainer.inherit", source, "tiny-1m", "-o", init, cwd=tmp_path)
    assert again.returncode == 1 and "already exists" in again.stderr
    flags = ["--data", shards, "--init", init, "-o", tmp_path / "run", "--steps", 1, "--seq-len", 32]
    flags += ["--batch-tokens", 256, "--device", "cpu", "--holdout", 16]
    done = completed("trainer.run", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(first["validation"]["loss"] - report["losses"]["inherited"]) < 0.2  # other sequences, the same model
