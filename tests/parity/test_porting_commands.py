"""The commands of porting with PyTorch beside them: stored runs, labelled images, the table."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

from clouds_jax.data import records
from porting.__main__ import main
from porting.files import write
from porting.files.open import open_checkpoint
from porting.parity import run, torch_models, verify, verify_table
from porting.tables import get_table

pytestmark = pytest.mark.parity
SUM_ORDER = 1e-12  # relative, of a float64 sum over an array in another memory layout
TORCH_FREE = (
    "import sys\n"
    "for name in ('torch', 'torchvision', 'timm', 'open_clip', 'transformers'):\n"
    "    sys.modules[name] = None\n"
    "from porting.__main__ import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


def without_torch(*args):
    command = [sys.executable, "-c", TORCH_FREE, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def clouds_file(tmp_path_factory):
    """A small CLOUDS checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("clouds")
    state = torch_models.random_models(get_table("clouds"), "tiny", 0).state
    write.write(folder / "a.pth", state, {"entry": "model"}, plain=False)
    return folder / "a.pth", state


@pytest.mark.slow
def test_runs_that_were_stored_are_compared_without_pytorch(tmp_path, capsys, clouds_file):
    path, state = clouds_file
    file, report = tmp_path / "runs.safetensors", tmp_path / "report"
    args = ["parity", "clouds", "--heads", "4", "--seeds", "1", "--output", str(tmp_path / "torch")]
    assert main([*args, "--weights", str(path), "--store", str(file)]) == 0
    done = without_torch("parity", "--stored", file, "--weights", path, "--output", report)
    assert done.returncode == 0, done.stderr
    found = [json.loads((one / "report.json").read_text()) for one in (tmp_path / "torch", report)]
    assert found[1]["verdict"] == "equal within tolerance"
    assert "torch" in found[0]["versions"]
    here, there = (one["cases"][0]["taps"] for one in found)
    keys = ("name", "view", "shape", "judged", "good")
    assert [[t[k] for k in keys] for t in here] == [[t[k] for k in keys] for t in there]
    # the same reference; ours may round otherwise in another process
    stds = [[t["std"] for t in taps] for taps in (here, there)]
    np.testing.assert_allclose(*stds, rtol=SUM_ORDER)

    capsys.readouterr()
    assert main(["parity", "--stored", str(file)]) == 1
    assert "was made with a.pth" in capsys.readouterr().err
    other = {name: tensor + 1 for name, tensor in state.items()}
    write.write(tmp_path / "b.pth", other, {}, plain=True)
    assert main(["parity", "--stored", str(file), "--weights", str(tmp_path / "b.pth")]) == 1
    assert "was made with a.pth, sha256" in capsys.readouterr().err


@pytest.mark.slow
def test_stored_runs_of_random_weights_bring_the_weights_along(tmp_path):
    file = tmp_path / "runs.safetensors"
    _, cases, _ = run.run("open_clip_convnext", seeds=2, store=file)
    _, again, _ = run.run_stored(file)
    assert [case.name for case in again] == [case.name for case in cases]
    for one, other in zip(cases, again, strict=True):
        assert [t.ratio for t in one.taps] == [t.ratio for t in other.taps]


def test_a_stored_run_that_was_changed_is_refused(tmp_path, capsys):
    file = tmp_path / "runs.safetensors"
    run.run("efficientnet_lite0", seeds=1, store=file)
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    assert main(["parity", "--stored", str(file)]) == 1
    assert "differ from their hashes" in capsys.readouterr().err


def test_a_second_file_supplies_the_clip_that_the_first_lacks(tmp_path, clouds_file):
    path, state = clouds_file
    prefix = get_table("clouds").clip_prefix
    clip = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    head = {k: v for k, v in state.items() if not k.startswith(prefix)}
    write.write(tmp_path / "clip.safetensors", clip, {}, plain=True)
    write.write(tmp_path / "head.pth", head, {"entry": "model"}, plain=False)
    args = ["convert", "clouds", "--heads", "4", "--output"]
    assert main([*args, str(tmp_path / "whole"), str(path)]) == 0
    second = ["--clip", str(tmp_path / "clip.safetensors")]
    assert main([*args, str(tmp_path / "both"), str(tmp_path / "head.pth"), *second]) == 0
    both, whole = (open_checkpoint(tmp_path / name)[0] for name in ("both", "whole"))
    assert set(both) == set(whole)
    assert all(np.array_equal(both[name], whole[name]) for name in whole)
    assert main([*args, str(tmp_path / "head"), str(tmp_path / "head.pth")]) == 0
    assert all(name.startswith("head.") for name in open_checkpoint(tmp_path / "head")[0])


def test_folders_of_photos_and_bfloat16(tmp_path):
    import PIL.Image

    rng = np.random.default_rng(0)
    for i, shape in enumerate([(41, 57, 3), (64, 33, 3)]):
        PIL.Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / f"{i}.png")
    _, cases, tolerance = run.run(
        "open_clip_convnext", seeds=1, images=[tmp_path], dtype="bfloat16"
    )
    assert [case.name for case in cases] == ["0.png, seed 0", "1.png, seed 0"]
    ratios = [tap.ratio for case in cases for tap in case.taps]
    assert max(ratios) <= tolerance.model
    assert min(ratios) > 1e-4  # it did run in bfloat16
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images"):
        run.run("open_clip_convnext", images=[tmp_path / "none"])


@pytest.mark.slow
def test_both_sides_are_scored_on_labelled_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(torch_models._CLASSES, "tiny", 11)
    rng = np.random.default_rng(0)
    examples = [
        records.Example(
            key=f"{i}",
            image=rng.integers(0, 256, (40, 56, 3), np.uint8),
            label=rng.choice([*range(11), 255], (40, 56)).astype(np.uint8),
        )
        for i in range(3)
    ]
    folder = tmp_path / "camvid"
    folder.mkdir()
    shard = folder / records.shard_name("test", 0, 1)
    with records.shard_writer(shard) as writer:
        for example in examples:
            writer.write(records.encode(example))
    summary = {
        "version": records.SCHEMA_VERSION,
        "label_space": "camvid11",
        "shards": [{"name": shard.name, "bytes": shard.stat().st_size}],
    }
    (folder / "test.summary.json").write_text(json.dumps(summary))
    args = ["parity", "clouds", "--seeds", "1", "--output", str(tmp_path / "report")]
    labelled = ["--labelled", "camvid/test", "--shards", str(tmp_path), "--limit", "2"]
    assert main([*args, *labelled]) == 0
    assert "mIoU of 11 classes on 2 images of camvid/test" in capsys.readouterr().out
    found = json.loads((tmp_path / "report" / "report.json").read_text())["labelled"]
    assert 0 < found["ours"] < 1 and abs(found["delta"]) <= 5e-4 and found["agreement"] > 0.999
    assert main([*args, "--labelled", "camvid/test"]) == 1
    assert "--labelled needs --shards" in capsys.readouterr().err
    assert main(["parity", "efficientnet_lite0", "--seeds", "1", *labelled]) == 1
    assert "has no encoder and head here" in capsys.readouterr().err


def test_a_row_of_the_table_is_made_kept_and_made_again_when_code_changes(tmp_path, monkeypatch):
    args = ["verify", "open_clip_convnext", "--output", str(tmp_path)]
    assert main(args) == 0
    row = verify_table.Row("open_clip_convnext", "convnext_debug", "tiny")
    found = json.loads((tmp_path / "rows" / f"{row.name}.json").read_text())
    assert found["verdict"] == "ok" and found["loaded"] == found["bit_equal"] == found["tensors"]
    assert found["told"] == ["open_clip_convnext"] and found["worst"]["chain"] < 1e-4
    assert (
        "| `open_clip_convnext` | `convnext_debug` | tiny |" in (tmp_path / "table.md").read_text()
    )
    assert [p.name for p in (tmp_path / "rows").iterdir()] == [f"{row.name}.json"]

    made = []
    monkeypatch.setattr(verify, "run", lambda row, folder: made.append(row) or found)
    assert main(args) == 0 and not made
    found["code"]["porting/tables/rules.py"] = "other"
    verify_table.write_row(tmp_path, found)
    assert main(args) == 0 and made == [row]


def test_what_the_tensors_cannot_tell_is_asked(tmp_path, capsys):
    """Text heads of CLOUDS and of FC-CLIP have the same names, and other licences."""
    state = torch_models.random_models(get_table("fcclip"), "tiny", 0).state
    write.write(tmp_path / "a.pth", state, {}, plain=True)
    assert main(["plan", str(tmp_path / "a.pth"), "--heads", "4"]) == 1
    assert "fits several families equally: clouds_text, fcclip; name" in capsys.readouterr().err
    assert main(["plan", "fcclip", str(tmp_path / "a.pth"), "--heads", "4"]) == 0


def test_a_row_that_fails_says_why_and_the_status_is_1(tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise ValueError("the file is broken")

    monkeypatch.setattr(verify.convert, "prepare", broken)
    args = ["verify", "open_clip_convnext", "--output", str(tmp_path)]
    assert main(args) == 1
    assert "**ValueError: the file is broken**" in capsys.readouterr().out
    assert main(["verify", "nothing", "--output", str(tmp_path)]) == 1
    assert "TABLES has no 'nothing'" in capsys.readouterr().err
