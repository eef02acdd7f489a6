"""ConvNeXt of transformers: ImageNet's, DINOv3's, and as the trunk of a Mask2Former."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from flax import nnx

from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.head import Mask2FormerHead
from porting.conversion.targets import encoder_shapes, infer_target
from porting.files.open import open_checkpoint
from porting.parity import report, run
from porting.parity.jax_steps import jitted
from porting.parity.model_pair import with_weights
from porting.parity.tolerances import get_tolerance
from porting.reference import hugging_face
from porting.reference.randomise import randomise
from porting.tables import convnext_hf, get_table
from porting.tables.apply import apply_rules, invert_rules, plan

pytestmark = pytest.mark.parity
DINOV3 = tuple(f"dinov3_convnext_{size}" for size in ("tiny", "small", "base", "large"))
# blocks of the debug sizes, three downsamplings and the stem
STEPS = 1 + 3 + sum((1, 1, 2, 1))
FEATURES = ["res2", "res3", "res4", "res5"]


def arrays(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def shapes(state):
    return {
        name: jax.ShapeDtypeStruct(tuple(t.shape), np.dtype(str(t.dtype).removeprefix("torch.")))
        for name, t in state.items()
    }


def meta(make):
    """The names and shapes of a module that is never filled."""
    with torch.device("meta"):
        return shapes(make().state_dict())


def size_of(encoder):
    ours = nnx.eval_shape(lambda: get_encoder(encoder).build(nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(ours)))


@pytest.mark.parametrize(
    "family, encoder, more",
    [
        ("convnext_hf", "convnext_in22k_debug", []),
        ("convnext_hf", "convnext_in22k_debug_normed", []),
        ("dinov3_convnext_hf", "dinov3_convnext_debug", ["embedding"]),
    ],
)
def test_blocks_and_features_equal_the_reference(family, encoder, more):
    pair, cases, tolerance = run.run(family, size="tiny", seeds=1, encoder=encoder)
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    assert pair.encoder.name == encoder
    for case in cases:
        assert [tap.name for tap in case.taps if tap.view == "chain"] == FEATURES + more
        assert sum(tap.view == "block" for tap in case.taps) == STEPS


@pytest.mark.parametrize(
    "family, encoder, make",
    [
        ("convnext_hf", "convnext_in22k_debug", hugging_face.convnext_hf),
        ("convnext_hf", "convnext_in22k_debug_normed", hugging_face.convnext_hf),
        ("dinov3_convnext_hf", "dinov3_convnext_debug", hugging_face.dinov3_convnext),
    ],
)
def test_the_way_back_loads_strictly(family, encoder, make):
    first, second = make(encoder).module, make(encoder).module
    state = arrays(randomise(first, 0))
    rules = get_table(family).rules
    want = {"encoder": encoder_shapes(encoder)}
    back = invert_rules(apply_rules(state, rules, want), rules, state)
    left_out = plan(state, rules, want).dropped
    whole = {name: torch.from_numpy(back.get(name, state[name])) for name in (*back, *left_out)}
    second.load_state_dict(whole, strict=True)
    assert all(np.array_equal(tensor, state[name]) for name, tensor in arrays(second).items())


def test_a_saved_dinov3_and_its_names_in_memory_convert_to_the_same_weights(tmp_path):
    model = hugging_face.dinov3_convnext("dinov3_convnext_debug").module.module
    randomise(model, 1)
    model.save_pretrained(tmp_path)
    file, _ = open_checkpoint(tmp_path)
    assert "stages.0.layers.0.gamma" in file
    assert "model.stages.0.layers.0.gamma" in model.state_dict()
    rules = get_table("dinov3_convnext_hf").rules
    want = {"encoder": encoder_shapes("dinov3_convnext_debug")}
    trees = [apply_rules(state, rules, want) for state in (file, arrays(model))]
    assert jax.tree.all(jax.tree.map(np.array_equal, *trees))


@pytest.mark.parametrize("encoder", DINOV3)
def test_dinov3s_full_models_fit_without_a_rest(encoder):
    source = meta(lambda: hugging_face.dinov3_convnext(encoder).module)
    table = get_table("dinov3_convnext_hf")
    target = infer_target(source, table)
    found = plan(source, table.rules, target.shapes)
    assert target.encoder == encoder and not found.misfits and not found.dropped
    assert size_of(encoder) == sum(np.prod(leaf.shape) for leaf in source.values())


@pytest.mark.parametrize("encoder", convnext_hf.ENCODERS)
def test_the_full_models_of_imagenet_fit(encoder):
    source = meta(lambda: hugging_face.convnext_hf(encoder).module)
    table = get_table("convnext_hf")
    target = infer_target(source, table)
    found = plan(source, table.rules, target.shapes)
    assert target.encoder == encoder and not found.misfits
    assert size_of(encoder) == sum(np.prod(source[name].shape) for name in found.used)
    left_out = {name.split(".")[-2] for name in found.dropped}
    assert left_out == (set() if "normed" in encoder else {"layernorm", "classifier"})


def mask2former(trunk):
    """Hugging Face's whole class at a tiny size."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    config = Mask2FormerConfig(
        **({} if trunk is None else {"backbone_config": trunk}),
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=64,
        num_attention_heads=4,
        encoder_layers=2,
        encoder_feedforward_dim=48,
        decoder_layers=7,
        dim_feedforward=40,
        num_queries=7,
        num_labels=5,
        dropout=0.0,
    )
    return Mask2FormerForUniversalSegmentation(config).eval()


@pytest.mark.parametrize("encoder", ["convnext_in22k_debug_normed", "resnet_debug"])
def test_a_whole_mask2former_equals_the_real_class_and_its_way_back_loads_strictly(encoder):
    hugging_face.prepare()
    model = randomise(mask2former(hugging_face.trunk_config(encoder)), 0)
    state = arrays(model)
    table = get_table("mask2former_hf")
    target = infer_target(state, table, heads=4)
    assert target.encoder == encoder and target.classes == 5
    tree = apply_rules(state, table.rules, target.shapes)

    spec = get_encoder(encoder)
    trunk = with_weights(spec.build, tree["encoder"])
    head = with_weights(
        lambda rngs: Mask2FormerHead(target.widths, target.head, target.classes, rngs=rngs),
        tree["head"],
    )
    images = np.random.default_rng(0).normal(size=(1, 64, 96, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        features = jitted(trunk, lambda m, x: m(x))(images)
        ours = jitted(head, lambda m, f: m(f, all_outputs=False))(features)
    with torch.no_grad():
        theirs = model(torch.from_numpy(images).movedim(-1, 1).contiguous())
    bound = get_tolerance("float32", jax.default_backend()).model
    for one, other in (
        (ours.class_logits[-1], theirs.class_queries_logits.numpy()),
        (ours.mask_logits[-1], theirs.masks_queries_logits.movedim(1, -1).numpy()),
    ):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= bound * other.std()

    back = invert_rules(tree, table.rules, state)
    left_out = plan(state, table.rules, target.shapes).dropped
    assert all(n.endswith(("num_batches_tracked", "criterion.empty_weight")) for n in left_out)
    again = mask2former(hugging_face.trunk_config(encoder))
    whole = {name: torch.from_numpy(back.get(name, state[name])) for name in (*back, *left_out)}
    again.load_state_dict(whole, strict=True)
    assert all(np.array_equal(tensor, state[name]) for name, tensor in arrays(again).items())


def test_of_a_mask2former_with_a_swin_transformer_the_head_remains():
    hugging_face.prepare()
    with torch.device("meta"):
        model = mask2former(None)
    from transformers.core_model_loading import revert_weight_conversion

    table = get_table("mask2former_hf")
    for state in (model.state_dict(), revert_weight_conversion(model, model.state_dict())):
        source = shapes(state)
        target = infer_target(source, table, heads=4)
        found = plan(source, table.rules, target.shapes)
        assert target.encoder is None and set(target.shapes) == {"head"} and not found.misfits
        reasons = {rule.why for name, rule in found.dropped.items() if "encoder." in name}
        assert reasons == {"Swin Transformers are no encoders of ours"}
        assert any(".hidden_states_norms.stage1." in name for name in found.dropped)
