"""One model under several names, names that are refused with a reason, and misfits by pattern."""

import numpy as np
import porting_files
import pytest

from porting.__main__ import main
from porting.conversion import convert
from porting.files.open import open_checkpoint
from porting.tables.misfits import grouped_misfits, grouped_names

FAMILY = "timm_convnext"


def run(*args):
    return main([str(arg) for arg in args])


def renamed(state, *pairs):
    """The state under names in which the first of each pair is replaced by the second, in turn."""
    for old, new in pairs:
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
    return state


def trunk():
    state = porting_files.timm_state()
    return {name: tensor for name, tensor in state.items() if not name.startswith("head")}


def authors(depthwise="dwconv", pointwise="pwconv"):
    """The trunk under the names of facebookresearch/ConvNeXt."""
    state = renamed(trunk(), ("stem.", "downsample_layers.0."), (".blocks.", "."))
    for s in (1, 2, 3):
        state = renamed(state, (f"stages.{s}.downsample.", f"downsample_layers.{s}."))
    return renamed(
        state, ("conv_dw", depthwise), ("mlp.fc1", f"{pointwise}1"), ("mlp.fc2", f"{pointwise}2")
    )


def ones(*names, size=32):
    return {name: np.ones(size, np.float32) for name in names}


def released():
    return authors() | ones("norm.weight", "norm.bias", "head.weight", "head.bias")


def pretrained():
    """mmpretrain's classifier."""
    state = {f"backbone.{k}": v for k, v in authors("depthwise_conv", "pointwise_conv").items()}
    return state | ones("backbone.norm3.weight", "backbone.norm3.bias", "head.fc.weight")


def features_only():
    return renamed(trunk(), ("stem.", "stem_"), ("stages.", "stages_"))


def with_convolutions(state, part):
    """The state with its linear layers as 1x1 convolutions."""
    return {
        name: tensor[:, :, None, None] if part in name and tensor.ndim == 2 else tensor
        for name, tensor in state.items()
    }


SPELLINGS = {
    "authors": released,
    "authors, backbone alone": authors,
    "mmpretrain": pretrained,
    "features_only": features_only,
    "conv_mlp": lambda: with_convolutions(trunk(), "mlp.fc"),
    "mmpretrain, convolutions": lambda: with_convolutions(pretrained(), "pointwise_conv"),
    "compiled": lambda: {f"_orig_mod.{name}": tensor for name, tensor in released().items()},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_convnext_converts_to_the_same_weights_and_back(tmp_path, spelling):
    state = SPELLINGS[spelling]()
    file = porting_files.save(tmp_path / "a.safetensors", state)
    plain = porting_files.save(tmp_path / "b.safetensors", trunk())
    assert run("convert", file, "--output", tmp_path / "w") == 0
    assert run("convert", plain, "--output", tmp_path / "v") == 0
    ours, expected = open_checkpoint(tmp_path / "w")[0], open_checkpoint(tmp_path / "v")[0]
    assert ours.keys() == expected.keys()
    assert all(np.array_equal(ours[name], array) for name, array in expected.items())
    assert run("roundtrip", file) == 0
    back = tmp_path / "back.npz"
    assert run("invert", tmp_path / "w", "--output", back, "--from", file) == 0
    restored = open_checkpoint(back)[0]
    assert restored.keys() == open_checkpoint(file)[0].keys()
    assert all(np.array_equal(restored[name], state[name]) for name in restored)


def test_a_segmenter_of_mmsegmentation_gives_an_encoder_with_its_feature_norms(tmp_path):
    state = {f"backbone.{name}": tensor for name, tensor in authors().items()}
    for s, width in enumerate(porting_files.WIDTHS):
        state |= ones(f"backbone.norm{s}.weight", f"backbone.norm{s}.bias", size=width)
    state["backbone.norm1.weight"] *= 3
    state |= ones("decode_head.conv_seg.weight", "auxiliary_head.convs.0.conv.weight")
    made = convert.prepare(None, porting_files.save(tmp_path / "a.safetensors", state))
    assert made.table.name == FAMILY and made.target.encoder == "convnext_in22k_debug_normed"
    assert len(made.plan.dropped) == 2
    np.testing.assert_array_equal(
        made.tree()["encoder"]["feature_norms"][1]["scale"], state["backbone.norm1.weight"]
    )


def test_a_convolution_larger_than_1x1_is_no_linear_layer(tmp_path, capsys):
    state = trunk()
    name = "stages.0.blocks.0.mlp.fc1.weight"
    state[name] = np.ones((32, 8, 3, 3), np.float32)
    assert run("plan", FAMILY, porting_files.save(tmp_path / "a.safetensors", state)) == 1
    out = capsys.readouterr().out
    assert f"{name} (32, 8, 3, 3): does not fit linear_or_pointwise: axis 2 has length 3" in out


def sam_hq():
    """SAM's prompt encoder and mask decoder, with the names that SAM-HQ adds."""
    pytest.importorskip("torch")
    from porting.reference.sam import build_sam

    state = {name: tensor.numpy() for name, tensor in build_sam(None).state_dict().items()}
    added = ["hf_token.weight", *(f"hf_mlp.layers.{i}.bias" for i in range(3))]
    added += [f"compress_vit_feat.{i}.weight" for i in (0, 1, 3)]
    added += [f"embedding_encoder.{i}.weight" for i in (0, 1, 3)]
    added += [f"embedding_maskfeature.{i}.weight" for i in (0, 1, 3)]
    return state | ones(*(f"mask_decoder.{name}" for name in added))


@pytest.mark.parametrize("prefix", ["", "sam_model."])
def test_sam_hq_is_named_and_converts_once_its_layers_are_dropped(tmp_path, capsys, prefix):
    state = {prefix + name: tensor for name, tensor in sam_hq().items()}
    file = porting_files.save(tmp_path / "a.safetensors", state)
    assert run("convert", file, "--output", tmp_path / "w") == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 2 and "12 more: SAM-HQ's own layers" in error
    drop = error.split("--drop '")[1].split("'")[0]
    assert run("convert", file, "--drop", drop, "--output", tmp_path / "w") == 0
    assert "family sam_decoder" in capsys.readouterr().out


def test_many_misfits_fit_on_a_screen_and_all_of_them_can_be_had(tmp_path, capsys):
    state = {name: tensor for name, tensor in trunk().items() if not name.endswith("gamma")}
    state |= ones(*(f"extra.{i}.{j}.weight" for i in range(9) for j in range(9)))
    state |= ones(*(f"other{chr(97 + i)}.{j}.bias" for i in range(26) for j in range(2)))
    file = porting_files.save(tmp_path / "a.safetensors", state)
    assert run("convert", FAMILY, file, "--output", tmp_path / "w") == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) <= 21 and error[-1] == "--all lists every misfit"
    assert "  extra.*.*.weight: 81 without a rule" in error
    assert any(line.endswith(" more misfits") for line in error)
    assert run("plan", FAMILY, file, "--brief") == 1
    out = capsys.readouterr().out
    assert "  extra.*.*.weight: 81 without a rule\n" in out and "--all lists" in out
    for command in (["convert", "--output", tmp_path / "w"], ["plan"], ["roundtrip"]):
        assert run(*command, FAMILY, file, "--all") == 1
        text = "".join(capsys.readouterr())
        assert "extra.8.8.weight (32,): matches no rule" in text
        assert "encoder.stages.2.blocks.gamma (2, 24): nothing in the checkpoint" in text
        assert "--all" not in text


def test_a_file_of_no_family_is_listed_by_pattern(tmp_path, capsys):
    state = ones(*(f"blocks.{i}.foo" for i in range(40)))
    assert run("plan", porting_files.save(tmp_path / "a.safetensors", state)) == 1
    assert "  blocks.*.foo: 40 known to no family\n" in capsys.readouterr().err


def test_misfits_are_grouped_by_names_and_by_what_is_wrong():
    missing = "nothing in the checkpoint fills it"
    misfits = [
        *(f"stages.{s}.blocks.{b}.gamma (8,): {missing}" for s in range(4) for b in range(9)),
        f"stages.0.fc1.bias (8,): {missing}",
        f"stages.0.fc2.bias (8,): {missing}",
        *(f"blocks.{b}.fc1: fc1 is (8,) in the model, ({b},) after identity" for b in range(3)),
    ]
    assert grouped_misfits(misfits) == [
        "stages.*.blocks.*.gamma: 36 not in the file",
        f"stages.0.fc1.bias (8,): {missing}",
        f"stages.0.fc2.bias (8,): {missing}",
        "blocks.*.fc1: 3 times, first fc1 is (8,) in the model, (0,) after identity",
    ]
    assert grouped_misfits(misfits, 2)[2:] == ["and 4 more misfits"]
    assert grouped_names(["a.0.b", "a.1.b", "c", "a.b"]) == ["a.*.b (2)", "c", "a.b"]
    assert grouped_names(["c", "a.0.b", "a.1.b"], 1) == ["c", "and 2 more"]
