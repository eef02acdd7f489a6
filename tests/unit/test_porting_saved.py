"""Checkpoints as training programs save them: prefixes, entries, and values beside the weights."""

import argparse
import collections
import dataclasses
import datetime
import os
import pathlib
import pickle
import types

import numpy as np
import porting_files
import pytest

from porting.__main__ import main
from porting.conversion import convert
from porting.files.open import Selection, open_checkpoint
from porting.files.pickle_names import UnsafePickleError

PREFIXES = [
    "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_forward_module.", "net.", "student.",
    "sam_model.", "backbone.", "models.0.", "pl_module.model.encoder.",
]  # fmt: skip


def run(*args):
    return main([str(arg) for arg in args])


def put_before(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol))
    return str(path)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("state", [porting_files.clip_state, porting_files.timm_state])
def test_a_prefix_is_found_by_fit_with_other_tensors_beside_it(tmp_path, prefix, state):
    others = {
        "loss.weight": np.ones(3, np.float32),
        "val_iou.confusion": np.ones((2, 2), np.float32),
        "step": np.asarray(7),
    }
    file = write(tmp_path / "a.pkl", {"state_dict": put_before(prefix, state()) | others})
    made = convert.prepare(None, file)
    assert not made.plan.misfits and list(made.state) == list(state())
    assert made.provenance.prefix == prefix
    assert made.provenance.beside == tuple(f"state_dict.{name}" for name in others)


def test_the_plan_says_which_tensors_are_not_read_and_the_way_back_has_the_prefix(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    state = put_before("_orig_mod.", porting_files.timm_state())
    heads = {f"heads.{i}.weight": np.ones(2, np.float32) for i in range(30)}
    file = write(tmp_path / "a.pkl", state | heads)
    assert run("plan", file, "--brief") == 0
    out = capsys.readouterr().out
    assert "read without the prefix _orig_mod.\n" in out
    assert "not read: heads.*.weight (30)\n" in out
    assert run("convert", file, "--output", tmp_path / "w") == 0
    assert run("invert", tmp_path / "w", "--output", tmp_path / "b.pth", "--from", file) == 0
    assert list(torch.load(tmp_path / "b.pth", weights_only=True)) == list(state)


def test_of_student_and_teacher_one_must_be_chosen(tmp_path, capsys):
    student, teacher = porting_files.timm_state(), porting_files.timm_state(seed=1)
    state = put_before("student.", student) | put_before("teacher.backbone.", teacher)
    file = write(tmp_path / "a.pkl", {"model": state | {"center": np.ones(2, np.float32)}})
    for family in ([], ["timm_convnext"]):
        assert run("convert", *family, file, "--output", tmp_path / "w") == 1
        error = capsys.readouterr().err
        assert f"student. (timm_convnext, {len(student)} tensors)" in error
        assert f"teacher.backbone. (timm_convnext, {len(teacher)} tensors)" in error
        assert error.endswith("choose one with --prefix PREFIX.\n")
    for prefix in ("teacher.", "teacher", "teacher.backbone."):
        assert run("convert", file, "--prefix", prefix, "--output", tmp_path / "w", "--force") == 0
    made = convert.prepare(None, file, selection=Selection(prefix="teacher."))
    assert made.provenance.prefix == "teacher.backbone."
    np.testing.assert_array_equal(made.state["stem.0.weight"], teacher["stem.0.weight"])
    assert run("roundtrip", file, "--prefix", "student.") == 0
    capsys.readouterr()
    assert run("plan", file, "--prefix", "net.") == 1
    error = capsys.readouterr().err
    assert "no name that begins with 'net.'; there are: student., teacher." in error


def test_models_of_two_families_are_a_choice_too(tmp_path, capsys):
    state = put_before("a.", porting_files.timm_state())
    state |= put_before("b.", porting_files.clip_state())
    file = write(tmp_path / "a.pkl", state)
    assert run("plan", file) == 1
    error = capsys.readouterr().err
    assert "a. (timm_convnext" in error and "b. (open_clip_convnext" in error
    assert run("plan", "open_clip_convnext", file) == 0
    assert run("plan", "timm_convnext", file) == 1
    assert "b.visual.trunk. (timm_convnext" in capsys.readouterr().err
    assert run("plan", "timm_convnext", file, "--prefix", "a.") == 0


def test_a_part_of_a_model_is_converted_alone_only_if_its_prefix_is_named(tmp_path, capsys):
    file = porting_files.save(tmp_path / "a.safetensors", porting_files.clip_state())
    assert run("plan", "timm_convnext", file) == 1
    error = capsys.readouterr().err
    assert "visual.head.mlp.fc1.weight (24, 32): not below the prefix visual.trunk." in error
    assert "family open_clip_convnext fits better: 0 misfits" in error
    assert run("plan", "timm_convnext", file, "--prefix", "visual.trunk.") == 0


@pytest.mark.parametrize(
    "entry, key",
    [
        ("model_ema", "model_ema"),
        ("state_dict_ema", "state_dict_ema"),
        ("ema.module", "ema"),
        ("ema.state_dict", "ema"),
    ],
)
def test_of_several_state_dicts_one_must_be_chosen(tmp_path, entry, key, capsys):
    plain, ema = porting_files.timm_state(), porting_files.timm_state(seed=1)
    averaged = put_before("module.", ema)
    for name in reversed(entry.split(".")):
        averaged = {name: averaged, "decay": 0.9}
    optimizer = {"state": {0: {"exp_avg": np.ones(3, np.float32)}}, "param_groups": []}
    content = {"model": plain, "optimizer": optimizer, "epoch": 3} | averaged
    file = write(tmp_path / "a.pkl", content)
    assert run("convert", file, "--output", tmp_path / "w") == 1
    assert f"of one model: model, {entry}; choose one with --entry" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
    for chosen in (entry, key):
        made = convert.prepare(None, file, selection=Selection(entry=chosen))
        np.testing.assert_array_equal(made.state["stem.0.weight"], ema["stem.0.weight"])
        assert entry.startswith(made.provenance.entry)
    made = convert.prepare(None, file, selection=Selection(entry="model"))
    np.testing.assert_array_equal(made.state["stem.0.weight"], plain["stem.0.weight"])
    assert run("inspect", file, "--entry", "optim") == 1
    size = len(plain)
    listed = f"it has: model ({size} tensors), {entry} ({size} tensors)."
    assert listed in capsys.readouterr().err


def test_an_ema_comes_back_from_its_own_entry(tmp_path):
    torch = pytest.importorskip("torch")
    content = {
        "state_dict": porting_files.timm_state(),
        "state_dict_ema": porting_files.timm_state(seed=1),
    }
    file, weights, back = write(tmp_path / "a.pkl", content), tmp_path / "w", tmp_path / "b.pth"
    assert run("convert", file, "--entry", "state_dict_ema", "--output", weights) == 0
    assert run("invert", weights, "--output", back, "--from", file) == 0
    restored = torch.load(back, weights_only=True)
    assert list(restored) == ["state_dict_ema"]
    expected = content["state_dict_ema"]
    assert all(np.array_equal(restored["state_dict_ema"][k], v) for k, v in expected.items())


@pytest.mark.parametrize("entry", ["net", "network", "checkpoint.weights"])
def test_an_unusual_entry_is_found_where_it_is_the_only_one(tmp_path, entry):
    content = porting_files.timm_state()
    for key in reversed(entry.split(".")):
        content = {key: content, "epoch": 3, "loss": np.asarray(0.5, np.float32)}
    made = convert.prepare(None, write(tmp_path / "a.pkl", content))
    assert made.table.name == "timm_convnext" and list(made.state) == list(
        porting_files.timm_state()
    )


def test_the_second_file_with_the_clip_may_have_a_prefix_too(tmp_path):
    head = {"sem_seg_head.predictor.query_feat.weight": np.ones((100, 256), np.float32)}
    file = porting_files.save(tmp_path / "a.safetensors", head)
    clip = put_before("_orig_mod.", porting_files.clip_state()) | {"loss": np.ones(2, np.float32)}
    second = porting_files.save(tmp_path / "clip.safetensors", clip)
    made = convert.prepare("clouds", file, clip=second, strict=False)
    assert made.target.encoder == "convnext_debug" and made.clip.prefix == "_orig_mod."
    assert made.clip.beside == ("loss",)
    added = {f"backbone.clip_model.{name}" for name in porting_files.clip_state()}
    assert set(made.state) == added | set(head)


def test_parts_side_by_side_and_a_tensor_beside_them_come_back(tmp_path):
    torch = pytest.importorskip("torch")
    trunk = {k: v for k, v in porting_files.timm_state().items() if not k.startswith("head")}
    content = {"backbone": trunk, "decode_head": {"conv.weight": np.ones(2, np.float32)}}
    content["head.weight"] = np.ones(3, np.float32)
    file, weights, back = write(tmp_path / "a.pkl", content), tmp_path / "w", tmp_path / "b.pth"
    assert run("convert", file, "--output", weights) == 0
    assert run("invert", weights, "--output", back, "--from", file) == 0
    restored = torch.load(back, weights_only=True)
    assert set(restored) == set(content) and list(restored["backbone"]) == list(trunk)
    np.testing.assert_array_equal(restored["head.weight"], content["head.weight"])


@pytest.mark.parametrize(
    "content, listed",
    [({}, "an empty dict."), ({f"k{i}": i for i in range(99)}, ", k7 and 91 more.")],
)
def test_a_file_without_tensors_says_what_it_has(tmp_path, capsys, content, listed):
    assert run("inspect", write(tmp_path / "a.pkl", content)) == 1
    error = capsys.readouterr().err
    assert "has no tensors, only: " in error and error.endswith(f"{listed}\n")


@pytest.mark.parametrize("wanted", ["a.b", "c", "c.d"])
def test_state_dicts_deep_in_several_entries_are_listed(tmp_path, capsys, wanted):
    content = {"a": {"b": porting_files.timm_state()}, "c": {"d": porting_files.timm_state()}}
    file = write(tmp_path / "a.pkl", content)
    assert run("plan", file) == 1
    assert "has state dicts at: a.b (63 tensors), c.d (63 tensors)" in capsys.readouterr().err
    assert run("plan", file, "--entry", wanted) == 0


def test_tensors_can_be_dropped_by_name(tmp_path, capsys):
    state = porting_files.timm_state()
    more = {"sam.hook.weight": np.ones(2, np.float32), "hook.bias": np.ones(2, np.float32)}
    file = porting_files.save(tmp_path / "a.safetensors", state | more)
    assert run("plan", "timm_convnext", file) == 1
    assert "hook.bias (2,): matches no rule" in capsys.readouterr().out
    assert run("plan", file, "--drop", "hook") == 0
    out = capsys.readouterr().out
    assert "not read: " in out and "sam.hook.weight" in out and "hook.bias" in out
    drop = ("--drop", "^sam", "--drop", "^hook")
    assert run("convert", file, *drop, "--output", tmp_path / "w") == 0
    assert run("roundtrip", file, *drop, "--weights", tmp_path / "w") == 0
    capsys.readouterr()
    assert run("plan", file, "--drop", "nothing") == 1
    assert "--drop 'nothing' matches no name of a.safetensors" in capsys.readouterr().err
    assert run("plan", file, "--drop", "(") == 1
    assert "--drop '(' is no regular expression" in capsys.readouterr().err


def test_a_weights_folder_has_no_entries(tmp_path, capsys):
    file = porting_files.save(tmp_path / "a.safetensors", porting_files.timm_state())
    assert run("convert", file, "--output", tmp_path / "w") == 0
    assert run("inspect", tmp_path / "w", "--entry", "model") == 1
    assert "leave --entry out" in capsys.readouterr().err
    assert run("inspect", tmp_path / "w", "--prefix", "encoder.stem") == 0
    assert "conv.kernel" in capsys.readouterr().out


def harmless():
    """Values that training programs save beside the weights."""
    counts = collections.defaultdict(list)
    counts["a"].append(1)
    space = argparse.Namespace(lr=1e-4, out=pathlib.Path("/x"), sizes={1, 2}, frozen=frozenset("a"))
    return {
        "args": space,
        "path": pathlib.PurePosixPath("a/b"),
        "windows": pathlib.PureWindowsPath("a"),
        "counts": counts,
        "counter": collections.Counter("abca"),
        "deque": collections.deque([1, 2], maxlen=3),
        "set": {1, "a"},
        "slice": slice(1, 2),
        "complex": 1 + 2j,
        "bytes": bytearray(b"x"),
        "type": float,
        "when": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        "took": datetime.timedelta(seconds=3),
        "simple": types.SimpleNamespace(a=1),
        "scalar": np.float64(0.5),
        "ordered": collections.OrderedDict(a=1),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_harmless_values_beside_the_weights_are_skipped(tmp_path, protocol):
    state = porting_files.timm_state()
    file = write(tmp_path / "a.pkl", {"model": state, **harmless()}, protocol)
    found, provenance = open_checkpoint(file)
    assert list(found) == list(state)
    assert set(provenance.beside) == set(harmless())


def test_a_state_dict_may_be_a_defaultdict(tmp_path):
    state = collections.defaultdict(int, porting_files.timm_state())
    assert list(open_checkpoint(write(tmp_path / "a.pkl", {"model": state}))[0]) == list(state)


def test_values_of_torch_beside_the_weights_are_skipped(tmp_path):
    torch = pytest.importorskip("torch")
    content = {"model": {"a": torch.ones(2)}, "device": torch.device("cpu"), "dtype": torch.half}
    content["size"] = torch.Size([1])
    for zipped in (True, False):
        torch.save(content | harmless(), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        assert list(open_checkpoint(tmp_path / "a.pth")[0]) == ["a"]


@dataclasses.dataclass
class Call:
    """Pickled as a call."""

    function: object
    args: tuple

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["beside", "inside", "before"])
def test_a_hostile_value_among_harmless_ones_is_named_and_not_run(tmp_path, protocol, place):
    witness = tmp_path / "witness"
    hostile = Call(os.mkdir, (str(witness),))
    content = {"model": porting_files.timm_state(), **harmless()}
    if place == "inside":
        content["args"].evil = {"deep": [hostile]}
    elif place == "before":
        content = {"evil": hostile} | content
    else:
        content["evil"] = hostile
    file = write(tmp_path / "a.pkl", content, protocol)
    with pytest.raises(UnsafePickleError, match=r"asks for (posix|nt)\.mkdir.*nothing of it was"):
        open_checkpoint(file)
    assert not witness.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cargparse\nNamespace\n(Vx\ntR(dVa\nVb\nsb.",  # a call with an argument, then a state
        b"cargparse\nNamespace\n(dVa\nVb\nsb.",  # a state for the type itself
        b"cpathlib\nPath\n(Va\ntR(Vb\ntR.",  # a call of the result
        b"c__builtin__\nobject\n(dV__class__\nVb\nsb.",
        b"cpathlib\nPath.home\n)R.",  # a method of a type
        b"\x80\x04\x8c\x07pathlib\x8c\x09Path.home\x93)R.",
        b"\x80\x04\x8c\x08argparse\x8c\x12Namespace.__init__\x93)R.",
    ],
)
def test_substitutes_do_nothing_with_what_a_pickle_gives_them(tmp_path, stream):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + stream.removeprefix(b"\x80\x02"))
    with pytest.raises(ValueError, match=r"a\.pkl"):
        open_checkpoint(tmp_path / "a.pkl")


@pytest.mark.parity
def test_parity_reads_the_same_choice(tmp_path, capsys):
    pytest.importorskip("torch")
    from porting.parity.torch_models import random_models
    from porting.tables import get_table

    table = get_table("timm_convnext")
    plain, ema = (random_models(table, "tiny", seed, None).state for seed in (0, 1))
    averaged = put_before("student.", ema) | {"hook.weight": np.ones(2, np.float32)}
    file = write(tmp_path / "a.pkl", {"model": plain, "model_ema": averaged})
    args = ["parity", "timm_convnext", "--weights", file, "--seeds", "1"]
    assert run(*args) == 1
    assert "choose one with --entry NAME" in capsys.readouterr().err
    stored = tmp_path / "runs.safetensors"
    choice = ["--entry", "model_ema", "--prefix", "student."]
    assert run(*args, *choice, "--store", stored) == 0
    assert run("parity", "--stored", stored, "--weights", file, *choice) == 0
