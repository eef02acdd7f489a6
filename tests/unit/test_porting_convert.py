"""Conversions there and back: what fits, what does not, and what a killed one leaves."""

import json
import os
import pickle
import signal
import subprocess
import sys

import ml_dtypes
import numpy as np
import porting_files
import pytest

from clouds_jax.weights import load_weights
from porting.__main__ import main
from porting.conversion import convert, streaming
from porting.files.open import open_checkpoint
from porting.files.trees import flatten
from porting.tables.apply import ConversionError

FAMILY = porting_files.FAMILY
STEM, GAMMA = "visual.trunk.stem.0.weight", "visual.trunk.stages.2.blocks.1.gamma"
TORCH_FREE = (
    "import json, sys\n"
    "for name in ('torch', 'torchvision', 'timm', 'open_clip', 'transformers'):\n"
    "    sys.modules[name] = None\n"
    "from porting.__main__ import main\n"
    "print(json.dumps([main(command) for command in json.loads(sys.argv[1])]))\n"
)


@pytest.fixture
def file(tmp_path):
    return porting_files.save(tmp_path / "a.safetensors", porting_files.clip_state())


def run(*args):
    return main([str(arg) for arg in args])


def test_plan_names_target_layout_shapes_and_counts(file, capsys):
    assert run("plan", FAMILY, file) == 0
    out = capsys.readouterr().out
    assert f"{GAMMA} (24,) float32 -> encoder.stages.2.blocks.gamma[1] (24,) float32" in out
    assert "(8, 3, 4, 4) float32 -> encoder.stem.conv.kernel (4, 4, 3, 8) float32 (conv2d)" in out
    assert f"{len(porting_files.clip_state())} used, filling 57 arrays of ours" in out
    assert "0 without a rule, 0 missing" in out and out.endswith("everything fits\n")


@pytest.mark.parametrize("family", [[], ["auto"]])
def test_a_family_that_is_not_named_is_told_by_the_tensors(file, family, capsys):
    assert run("plan", *family, file) == 0
    out = capsys.readouterr().out
    assert f"family {FAMILY}" in out and "{'encoder': 'convnext_debug'}" in out


def test_the_wrong_family_is_told_and_the_better_one_named(file, tmp_path, capsys):
    assert run("convert", "timm_convnext", file, "--output", tmp_path / "w") == 1
    error = capsys.readouterr().err
    assert "not of family timm_convnext" in error
    assert f"family {FAMILY} fits better: 0 misfits" in error
    assert len(error.splitlines()) < 12
    assert not (tmp_path / "w").exists()


def test_an_unknown_family_is_answered_with_the_known_ones(file, capsys):
    assert run("plan", "resnext", file) == 1
    assert "TABLES has no 'resnext'; it has: open_clip_convnext" in capsys.readouterr().err


def test_a_file_of_no_family_is_refused(tmp_path, capsys):
    path = porting_files.save(tmp_path / "a.safetensors", {"foo": np.zeros(3, np.float32)})
    assert run("plan", path) == 1
    assert "foo (3,): no family knows it" in capsys.readouterr().err


def test_missing_extra_and_misshapen_tensors_are_listed_together(tmp_path, capsys):
    state = porting_files.clip_state()
    del state[GAMMA]
    state["visual.trunk.oops"] = np.zeros(2, np.float32)
    state[STEM] = np.zeros((9, 3, 4, 4), np.float32)
    state["visual.trunk.stem.0.bias"] = np.zeros(8, np.int64)
    path = porting_files.save(tmp_path / "a.safetensors", state)
    expected = [
        "encoder.stages.2.blocks.gamma[1] (24,): nothing in the checkpoint fills it",
        "visual.trunk.oops (2,): matches no rule",
        "encoder.stem.conv.kernel is (4, 4, 3, 8) in the model, (4, 4, 3, 9) after conv2d",
        "encoder.stem.conv.bias is float32 in the model, int64 in the file",
    ]
    assert run("convert", FAMILY, path, "--output", tmp_path / "w") == 1
    error = capsys.readouterr().err
    assert "4 misfits" in error and all(text in error for text in expected)
    assert run("plan", FAMILY, path) == 1
    out = capsys.readouterr().out
    assert "1 without a rule, 1 missing" in out and "2 of another shape, type or place" in out
    assert all(text in out for text in expected)
    assert not (tmp_path / "w").exists()


def test_numbers_that_are_not_finite_are_all_listed_before_anything_is_written(tmp_path, capsys):
    state = porting_files.clip_state()
    state[STEM][0, 0, 0, 0], state[GAMMA][:2] = np.nan, np.inf
    path = porting_files.save(tmp_path / "a.safetensors", state)
    assert run("convert", FAMILY, path, "--output", tmp_path / "w") == 1
    error = capsys.readouterr().err
    assert f"{STEM}: 1 of 384 values are not finite" in error
    assert f"{GAMMA}: 2 of 24 values are not finite" in error
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_files_convert_come_back_and_are_inverted(tmp_path, dtype, capsys):
    state = porting_files.clip_state(dtype)
    path = porting_files.save(tmp_path / "a.safetensors", state)
    assert run("convert", FAMILY, path, "--output", tmp_path / "w") == 0
    assert f"{len(state)} tensors come back bit for bit" in capsys.readouterr().out
    tree, _ = load_weights(tmp_path / "w")
    assert {leaf.dtype for _, leaf in flatten(tree)} == {np.dtype(np.float32)}
    assert run("roundtrip", FAMILY, path, "--weights", tmp_path / "w") == 0
    assert run("invert", tmp_path / "w", "--output", tmp_path / "b.safetensors") == 0
    assert f"{len(state)} of them are bit for bit" in capsys.readouterr().out
    back, _ = open_checkpoint(tmp_path / "b.safetensors")
    assert all(back[name].tobytes() == tensor.tobytes() for name, tensor in state.items())


def test_keep_writes_what_the_file_has(tmp_path):
    path = porting_files.save(tmp_path / "a.safetensors", porting_files.clip_state(np.float16))
    assert run("convert", path, "--output", tmp_path / "w", "--dtype", "keep") == 0
    tree, provenance = load_weights(tmp_path / "w")
    assert {leaf.dtype for _, leaf in flatten(tree)} == {np.dtype(np.float16)}
    assert provenance["dtype"] == "keep"


def test_narrowed_weights_say_so_and_come_back_rounded(file, tmp_path, capsys):
    args = ("convert", file, "--output", tmp_path / "w", "--dtype", "bfloat16")
    assert run(*args) == 0
    assert "do not: bfloat16 holds less than the file" in capsys.readouterr().out
    tree, _ = load_weights(tmp_path / "w")
    assert {leaf.dtype for _, leaf in flatten(tree)} == {np.dtype(ml_dtypes.bfloat16)}
    assert run("invert", tmp_path / "w", "--output", tmp_path / "b.npz") == 0
    back, state = open_checkpoint(tmp_path / "b.npz")[0], porting_files.clip_state()
    rounded = state[STEM].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(back[STEM], rounded)
    with pytest.raises(ConversionError, match="does not come back bit for bit"):
        from porting.conversion.invert import roundtrip

        roundtrip(convert.prepare(FAMILY, file), tmp_path / "w")


def test_numbers_too_large_for_float16_stop_the_conversion(tmp_path, capsys):
    state = porting_files.clip_state()
    state[GAMMA][3] = 1e5
    path = porting_files.save(tmp_path / "a.safetensors", state)
    args = ("convert", path, "--output", tmp_path / "w", "--dtype", "float16")
    assert run(*args) == 1
    assert f"{GAMMA}: float16 cannot hold its largest numbers" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("entry", ["", "model", "state_dict", "model_state", "state_dict.model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_nested_entries_and_prefixes_are_found_and_come_back(tmp_path, entry, prefix):
    state = porting_files.clip_state()
    content = {prefix + name: tensor for name, tensor in state.items()}
    for key in reversed(entry.split(".")) if entry else ():
        content = {key: content, "iteration": 3}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    made = convert.prepare(None, str(tmp_path / "a.pkl"))
    assert made.table.name == FAMILY and list(made.state) == list(state)
    assert (made.provenance.entry, made.provenance.prefix) == (entry, prefix)


def test_provenance_names_file_tensors_table_licence_and_order(file, tmp_path):
    assert run("convert", file, "--output", tmp_path / "w") == 0
    _, provenance = load_weights(tmp_path / "w")
    state, source = open_checkpoint(file)
    assert provenance["source"]["sha256"] == source.sha256
    assert provenance["order"] == list(state)
    assert provenance["table"]["version"] >= 1 and provenance["licence"]
    hashes = {name: entry["sha256"] for name, entry in provenance["tensors"].items()}
    from porting.files.open import tensor_hash

    assert hashes == {name: tensor_hash(tensor) for name, tensor in state.items()}


def test_weights_written_in_parts_equal_those_made_at_once(file, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_BATCH", 1)  # every part on its own
    made = convert.prepare(FAMILY, file)
    convert.save(made, tmp_path / "w")
    tree, _ = load_weights(tmp_path / "w")
    written = {".".join(path): leaf for path, leaf in flatten(tree)}
    expected = {".".join(map(str, path)): leaf for path, leaf in flatten(made.tree())}
    assert set(written) == set(expected)
    for name, leaf in expected.items():
        np.testing.assert_array_equal(written[name], leaf)


def test_an_unwritable_target_is_refused_before_the_work(file, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file, not a folder")
    output = tmp_path / "taken" / "w"
    assert run("convert", tmp_path / "nothing.pth", "--output", output) == 1
    assert "taken/w cannot be written" in capsys.readouterr().err
    assert run("convert", file, "--output", output) == 1
    assert "choose another --output" in capsys.readouterr().err
    assert run("invert", tmp_path, "--output", tmp_path / "taken" / "b.npz") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_killed_conversion_leaves_nothing_under_the_name_and_the_next_cleans_up(file, tmp_path):
    code = (
        "import os, signal, sys\n"
        "from porting.conversion import streaming\n"
        "streaming._BATCH = 1\n"
        "fill, count = streaming.WeightStream._fill, [0]\n"
        "def dying(self, names):\n"
        "    count[0] += 1\n"
        "    if count[0] == 20:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return fill(self, names)\n"
        "streaming.WeightStream._fill = dying\n"
        "from porting.__main__ import main\n"
        "main(sys.argv[1:])\n"
    )
    args = ["convert", FAMILY, file, "--output", str(tmp_path / "w")]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2 and left[0].startswith(".w.tmp-") and left[1] == "a.safetensors"
    assert main(args) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "w"]


def test_the_temporary_folder_of_a_living_process_is_left_alone(file, tmp_path):
    living = tmp_path / f".w.tmp-{os.getppid()}"
    living.mkdir()
    assert run("convert", file, "--output", tmp_path / "w") == 0
    assert living.exists()


def test_a_second_file_must_be_there_and_be_needed(tmp_path, capsys):
    state = porting_files.clip_state()
    clip = porting_files.save(tmp_path / "clip.safetensors", state)
    queries = {"sem_seg_head.predictor.query_feat.weight": np.ones((100, 256), np.float32)}
    head = porting_files.save(tmp_path / "a.safetensors", queries)
    missing = tmp_path / "none.bin"
    assert run("plan", "clouds", head, "--clip", missing) == 1
    assert "none.bin does not exist" in capsys.readouterr().err
    assert run("plan", FAMILY, clip, "--clip", clip) == 1
    assert f"files of family {FAMILY} hold no CLIP" in capsys.readouterr().err
    whole = {f"backbone.clip_model.{name}": tensor for name, tensor in state.items()}
    both = porting_files.save(tmp_path / "whole.safetensors", whole)
    assert run("plan", "clouds", both, "--clip", clip) == 1
    assert "has a CLIP of its own" in capsys.readouterr().err


def test_the_way_back_needs_no_torch_but_for_torchs_own_files(file, tmp_path):
    weights = tmp_path / "w"
    commands = [
        ["plan", file],
        ["convert", file, "--output", weights],
        ["invert", weights, "--output", tmp_path / "b.safetensors"],
        ["roundtrip", file, "--weights", weights],
        ["diff", tmp_path / "b.safetensors", file],
        ["list"],
        ["invert", weights, "--output", tmp_path / "b.pth"],
    ]
    arguments = json.dumps(commands, default=str)
    done = subprocess.run(
        [sys.executable, "-c", TORCH_FREE, arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stdout.splitlines()[-1])
    assert statuses == [0, 0, 0, 0, 0, 0, 1], done.stderr
    assert "or write .safetensors" in done.stderr and not (tmp_path / "b.pth").exists()


@pytest.mark.slow
def test_memory_stays_far_below_twice_the_file(tmp_path):
    """Many layers of a middle size, so that the file is large and no single array is."""
    state = {f"layers.{i}.weight": np.zeros((1024, 1024), np.float16) for i in range(100)}
    path = porting_files.save(tmp_path / "a.safetensors", state)
    code = (
        "import resource, sys\n"
        "import numpy as np, ml_dtypes\n"
        "from porting.conversion import streaming\n"
        "from porting.conversion.conversion import Conversion\n"
        "from porting.conversion.targets import Target\n"
        "from porting.tables import layouts\n"
        "from porting.tables.apply import plan\n"
        "from porting.tables.rules import Rule\n"
        "from porting.tables.table import Table\n"
        "from porting.files.open import open_checkpoint\n"
        "from clouds_jax.weights import save_weights\n"
        "import jax\n"
        "state, provenance = open_checkpoint(sys.argv[1])\n"
        "leaf = jax.ShapeDtypeStruct((1024, 1024), np.float32)\n"
        "want = {'layers': {str(i): {'kernel': leaf} for i in range(100)}}\n"
        "rules = (Rule(r'layers\\.(\\d+)\\.weight', r'layers.\\1.kernel', layouts.linear),)\n"
        "streaming._BATCH = 1 << 24\n"
        "table = Table('layers', rules, '', '')\n"
        "planned = plan(state, rules, want)\n"
        "conversion = Conversion(state, provenance, table, Target(want), planned)\n"
        "streaming.check_values(conversion)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "stream = streaming.WeightStream(conversion, 'float32')\n"
        "save_weights(sys.argv[2], iter(stream), {})\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print((after - before) * 1024)\n"
    )
    args = [sys.executable, "-c", code, path, str(tmp_path / "w")]
    done = subprocess.run(args, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout.split()[-1])
    assert grown < os.path.getsize(path), f"{grown:,} bytes for a file of {os.path.getsize(path):,}"
