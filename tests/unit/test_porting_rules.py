"""Rule tables: strict one way, bit-equal the other."""

import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest

from clouds_jax.nn.sam import vit
from porting.tables import TABLES, get_table, layouts, sam
from porting.tables.apply import ConversionError, apply_rules, invert_rules, plan
from porting.tables.rules import Rule, prefixed


def leaf(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def numbers(*shape, dtype=np.float32):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


RULES = (
    Rule(r"conv\.weight", "conv.kernel", layouts.conv2d),
    Rule(r"conv\.bias", "conv.bias"),
    Rule(r"blocks\.(\d)\.fc\.weight", r"blocks.fc.kernel[\1]", layouts.linear),
    Rule(r"attn\.in_proj", "attn.{query,key,value}.kernel", layouts.fused_qkv),
    Rule(r"count", None, why="nobody reads it"),
    Rule(r"zeros", None, why="always zero", value=0.0),
)
WANT = {
    "conv": {"kernel": leaf(3, 2, 4, 5), "bias": leaf(5)},
    "blocks": {"fc": {"kernel": leaf(2, 3, 7)}},
    "attn": {part: {"kernel": leaf(4, 4)} for part in ("query", "key", "value")},
}


def source():
    return {
        "conv.weight": numbers(5, 4, 3, 2),
        "conv.bias": numbers(5),
        "blocks.0.fc.weight": numbers(7, 3),
        "blocks.1.fc.weight": numbers(7, 3) + 1,
        "attn.in_proj": numbers(12, 4),
        "count": np.int64(3)[None],
        "zeros": np.zeros(6, np.float32),
    }


def test_a_fitting_checkpoint_fills_exactly_the_model():
    state = source()
    tree = apply_rules(state, RULES, WANT)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), tree) == jax.tree.map(
        lambda x: (x.shape, x.dtype), WANT
    )
    # y[h, w] = sum x[i] kernel[h, w, i]: the numbers, not only the shapes, moved as named
    assert tree["conv"]["kernel"][2, 1, 3, 4] == state["conv.weight"][4, 3, 2, 1]
    assert tree["blocks"]["fc"]["kernel"][1, 2, 6] == state["blocks.1.fc.weight"][6, 2]
    np.testing.assert_array_equal(tree["attn"]["key"]["kernel"], state["attn.in_proj"][4:8].T)


def test_a_rule_may_hold_only_for_files_that_have_another_name_too():
    rules = (
        *RULES,
        Rule(r"norm", "norm", when=r"conv\..*"),
        Rule(r"norm", None, why="means something else", when=r"swin\..*"),
        Rule(r"swin\.mark", None, why="another model"),
    )
    scale = {"norm": numbers(4)}
    want = WANT | {"norm": leaf(4)}
    assert "norm" in plan(source() | scale, rules, want).used
    other = scale | {"swin.mark": numbers(1)}
    assert "norm" in plan(other, rules, {}).dropped
    assert plan(scale, rules, {}).misfits == ("norm (4,): matches no rule",)
    tree = apply_rules(source() | scale, rules, want)
    assert "norm" in invert_rules(tree, rules, source() | scale)


def test_the_way_back_is_bit_equal_and_knows_constant_tensors():
    state = source()
    back = invert_rules(apply_rules(state, RULES, WANT), RULES, state)
    assert list(back) == [name for name in state if name != "count"]
    for name, tensor in back.items():
        assert tensor.dtype == state[name].dtype
        np.testing.assert_array_equal(tensor, state[name])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_exactly_and_comes_back(dtype):
    state = {"a": numbers(9, dtype=dtype)}
    rules, want = (Rule("a", "a"),), {"a": leaf(9)}
    tree = apply_rules(state, rules, want)
    assert tree["a"].dtype == np.float32
    assert invert_rules(tree, rules, state)["a"].tobytes() == state["a"].tobytes()
    tree["a"] = tree["a"] + np.float32(1e-7)
    with pytest.raises(ConversionError, match="cannot hold the float32 weights exactly"):
        invert_rules(tree, rules, state)


def test_all_misfits_are_told_in_one_error():
    state = source()
    state["conv.weight"] = numbers(5, 4, 3, 3)
    state["conv.bias"] = numbers(5).astype(np.float64)
    del state["blocks.1.fc.weight"]
    state["blocks.7.fc.weight"] = numbers(7, 3)
    state["oops"] = numbers(3)
    state["attn.in_proj"] = numbers(11, 4)
    with pytest.raises(ConversionError) as error:
        apply_rules(state, RULES, WANT)
    assert set(error.value.misfits) >= {
        "conv.weight: conv.kernel is (3, 2, 4, 5) in the model, (3, 3, 4, 5) after conv2d",
        "conv.bias: conv.bias is float32 in the model, float64 in the file",
        "blocks.7.fc.weight: blocks.fc.kernel[7] is outside blocks.fc.kernel (2, 3, 7)"
        " in the model",
        "blocks.fc.kernel[1] (3, 7): nothing in the checkpoint fills it",
        "oops (3,): matches no rule",
    }
    assert str(error.value).startswith(f"{len(error.value.misfits)} misfits:\n  ")
    assert any("does not fit fused_qkv" in text for text in error.value.misfits)


def test_a_missing_tensor_is_named_by_the_target_it_leaves_empty():
    state = source()
    del state["conv.bias"]
    with pytest.raises(ConversionError) as error:
        apply_rules(state, RULES, WANT)
    assert error.value.misfits == ("conv.bias (5,): nothing in the checkpoint fills it",)
    assert str(error.value).startswith("1 misfit:")


def test_two_rules_for_one_tensor_are_a_misfit():
    rules = (Rule("a.*", "a"), Rule(".*b", "b"))
    found = plan({"ab": leaf(3)}, rules, {})
    assert found.misfits[0] == "ab (3,): matches 2 rules: 'a.*' and '.*b'"


def test_two_tensors_for_one_target_are_a_misfit():
    rules = (Rule("a|b", "x"),)
    found = plan({"a": leaf(3), "b": leaf(3)}, rules, {"x": leaf(3)})
    assert found.misfits == ("b: x is already filled by a",)


def test_a_tensor_left_out_for_its_value_is_checked():
    state = source() | {"zeros": np.ones(6, np.float32)}
    with pytest.raises(ConversionError, match="zeros: must be 0 everywhere to be left out"):
        apply_rules(state, RULES, WANT)


def test_numbers_that_are_not_finite_are_refused():
    state = source()
    state["conv.bias"] = np.asarray([0, np.nan, np.inf, 1, 2], np.float32)
    with pytest.raises(ConversionError, match="conv.bias: 2 of 5 values are not finite"):
        apply_rules(state, RULES, WANT)


def test_a_rule_leaves_out_with_a_reason_or_not_at_all():
    with pytest.raises(ValueError, match="left out with a reason"):
        Rule("a", None)
    with pytest.raises(ValueError, match="left out with a reason"):
        Rule("a", "b", why="both")


def test_prefixes_move_both_sides_and_keep_group_numbers():
    rules = prefixed(RULES, r"model\.", "encoder.")
    state = {f"model.{name}": tensor for name, tensor in source().items()}
    tree = apply_rules(state, rules, {"encoder": WANT})
    np.testing.assert_array_equal(
        tree["encoder"]["blocks"]["fc"]["kernel"][1], source()["blocks.1.fc.weight"].T
    )


@pytest.mark.parametrize(
    "layout, shape, parts",
    [
        (layouts.identity, (), [()]),
        (layouts.identity, (3, 2), [(3, 2)]),
        (layouts.linear, (5, 3), [(3, 5)]),
        (layouts.conv2d, (5, 4, 3, 2), [(3, 2, 4, 5)]),
        (layouts.pointwise, (5, 4, 1, 1), [(4, 5)]),
        (layouts.depthwise, (5, 1, 3, 2), [(3, 2, 5)]),
        (layouts.fused_qkv, (12, 4), [(4, 4)] * 3),
        (layouts.fused_qkv_bias, (12,), [(4,)] * 3),
    ],
)
def test_every_layout_comes_back(layout, shape, parts):
    x = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    made = layout.forward(x)
    assert [part.shape for part in made] == parts
    np.testing.assert_array_equal(layout.backward(list(made)), x)


def test_a_1x1_layout_refuses_larger_kernels():
    with pytest.raises(ValueError, match="axis 2 has length 3"):
        layouts.pointwise.forward(np.zeros((5, 4, 3, 1)))


def test_an_unknown_family_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="TABLES has no 'resnet'; it has: open_clip_convnext"):
        get_table("resnet")
    assert all(table.name == name for name, table in TABLES.items())


def test_importing_the_tables_loads_neither_flax_nor_jax():
    code = "import porting.tables, sys; print(sorted({'jax', 'flax', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_tables_of_sam_have_the_depths_of_our_encoders():
    assert sam.GROUPS == vit.GROUPS
    for size, depth in sam.DEPTHS.items():
        assert vit.SIZES[size].depth == depth
    assert [vit.SIZES[size].depth for size in ("debug", "debug_l", "debug_h")] == [12, 24, 32]
