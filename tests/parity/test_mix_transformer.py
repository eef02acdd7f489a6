"""The Mix Transformer against SegFormer of transformers, under three kinds of names."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from flax import nnx

from clouds_jax.nn.encoders.registry import get_encoder
from porting.conversion.targets import encoder_shapes, infer_target
from porting.files.open import open_checkpoint
from porting.parity import report, run
from porting.reference import segformer
from porting.reference.randomise import randomise
from porting.tables import get_table
from porting.tables.apply import apply_rules, invert_rules, plan

pytestmark = pytest.mark.parity
FULL = [f"b{number}" for number in range(6)]
REFERENCES = {"segformer_hf": segformer.segformer_hf, "segformer": segformer.segformer}
DEBUG = {"segformer_hf": "mit_debug", "segformer": "mit_debug_nvlabs"}


def arrays(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def meta(make):
    """The names and shapes of a reference that is never filled."""
    with torch.device("meta"):
        module = make().module
    return {
        name: jax.ShapeDtypeStruct(tuple(t.shape), np.dtype(str(t.dtype).removeprefix("torch.")))
        for name, t in module.state_dict().items()
    }


@pytest.mark.parametrize("family, seeds", [("segformer_hf", 2), ("segformer", 1)])
def test_blocks_and_features_equal_the_reference(family, seeds):
    pair, cases, tolerance = run.run(family, size="tiny", seeds=seeds)
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    for case in cases:
        names = [tap.name for tap in case.taps if tap.view == "chain"]
        assert names == ["res2", "res3", "res4", "res5"]
        # per stage an embedding and a norm
        assert sum(tap.view == "block" for tap in case.taps) == 2 * 4 + sum((1, 2, 2, 1))


@pytest.mark.parametrize("family", DEBUG)
def test_the_way_back_loads_strictly_and_gives_the_same_features(family):
    first = REFERENCES[family](DEBUG[family])
    randomise(first.module, 0)
    state = arrays(first.module)
    rules = get_table(family).rules
    want = {"encoder": encoder_shapes(DEBUG[family])}
    back = invert_rules(apply_rules(state, rules, want), rules, state)
    dropped = plan(state, rules, want).dropped
    assert back.keys() | dropped.keys() == state.keys()
    second = REFERENCES[family](DEBUG[family])
    whole = {name: back.get(name, tensor) for name, tensor in state.items()}
    second.module.load_state_dict({n: torch.from_numpy(t) for n, t in whole.items()}, strict=True)
    x = theirs = torch.randn(1, 3, 41, 67, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for (_, one), (_, other) in zip(first.steps, second.steps, strict=True):
            x, theirs = one(x), other(theirs)
            assert torch.equal(x, theirs)


def test_a_saved_folder_and_the_names_in_memory_convert_to_the_same_weights(tmp_path):
    model = segformer.segformer_hf("mit_debug").module.module
    randomise(model, 1)
    model.save_pretrained(tmp_path)
    rules = get_table("segformer_hf").rules
    want = {"encoder": encoder_shapes("mit_debug")}
    file, _ = open_checkpoint(tmp_path)
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in file
    assert "segformer.stages.0.blocks.0.attention.q_proj.weight" in model.state_dict()
    trees = [apply_rules(state, rules, want) for state in (file, arrays(model))]
    assert jax.tree.all(jax.tree.map(np.array_equal, *trees))


@pytest.mark.parametrize("segmenter", [False, True])
@pytest.mark.parametrize("size", FULL)
def test_the_full_models_fit_and_are_told_by_their_shapes(size, segmenter):
    name = f"mit_{size}"
    source = meta(lambda: segformer.segformer_hf(name, segmenter=segmenter))
    table = get_table("segformer_hf")
    target = infer_target(source, table)
    found = plan(source, table.rules, target.shapes)
    assert target.encoder == name and not found.misfits
    ours = nnx.eval_shape(lambda: get_encoder(name).build(nnx.Rngs(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(ours)))
    assert count == sum(np.prod(source[used].shape) for used in found.used)
    assert all(left.startswith(("decode_head.", "classifier.")) for left in found.dropped)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_the_originals_largest_model_fits(prefix):
    source = {prefix + n: leaf for n, leaf in meta(lambda: segformer.segformer("mit_b5")).items()}
    # as in NVlabs' mix_transformer.py
    assert source[prefix + "block3.39.attn.kv.weight"].shape == (640, 320)
    assert source[prefix + "patch_embed1.proj.weight"].shape == (64, 3, 7, 7)
    assert source[prefix + "block1.0.attn.sr.weight"].shape == (64, 64, 8, 8)
    if prefix:
        source |= {"decode_head.linear_pred.weight": jax.ShapeDtypeStruct((19, 768), np.float32)}
        del source["backbone.head.weight"], source["backbone.head.bias"]
    table = get_table("segformer")
    target = infer_target(source, table)
    assert target.encoder == "mit_b5_nvlabs"
    assert not plan(source, table.rules, target.shapes).misfits
