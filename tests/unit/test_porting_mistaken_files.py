"""Files and folders that are no checkpoint, or only a part of one, are named for what they are."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import numpy as np
import porting_files
import pytest

from porting.__main__ import main
from porting.files.open import open_checkpoint

LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


def tar():
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("a.pth"))
        return file.getvalue()


def cut_zip():
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", bytes(3000))
        return file.getvalue()[:2000]


@pytest.mark.parametrize(
    "content, what",
    [
        (LFS.encode(), "is a Git LFS pointer, not the file itself: run `git lfs pull`"),
        (b"<!DOCTYPE html>\n<html><head>", "is a web page (HTML), not a checkpoint"),
        (b"\xef\xbb\xbf\n  <HTML lang=en>", "is a web page (HTML)"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "is a web page (HTML)"),
        (b"", "is empty (0 bytes)"),
        (gzip.compress(b"a" * 99), "is compressed with gzip; unpack it first: gunzip"),
        (bz2.compress(b"a" * 99), "is compressed with bzip2"),
        (lzma.compress(b"a" * 99), "is compressed with xz"),
        (tar(), "is a tar archive"),
        (cut_zip(), "is a zip file, as torch.save writes them, without its end"),
        (b'{\n "architectures": ["ConvNextModel"]}', "is a JSON file, which holds no tensors"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "is an HDF5 file"),
        (b"GGUF" + bytes(40), "is a GGUF file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_that_is_no_checkpoint_is_named_in_one_line(tmp_path, capsys, content, what, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    for command in ("plan", "inspect"):
        assert main([command, str(path)]) == 1
        error = capsys.readouterr().err
        assert f"error: {path} {what}" in error and len(error.splitlines()) == 1


def sharded(folder, count=2, form="model-{:05}-of-{:05}.safetensors"):
    """Writes a model in shards; returns its state and the names of the files."""
    folder.mkdir(exist_ok=True)
    state, names = porting_files.timm_state(), []
    for i in range(count):
        names.append(form.format(i + 1, count))
        porting_files.save(folder / names[-1], dict(list(state.items())[i::count]))
    return state, names


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_index_is_as_good_as_its_folder(tmp_path, name):
    state, names = sharded(tmp_path / "m")
    index = {"weight_map": {key: names[i % 2] for i, key in enumerate(state)}}
    (tmp_path / "m" / name).write_text(json.dumps(index))
    for path in (tmp_path / "m" / name, tmp_path / "m"):
        found, provenance = open_checkpoint(path)
        assert found.keys() == state.keys()
        assert provenance.file == path.name and set(provenance.sha256) == set(names)


@pytest.mark.parametrize("text", [LFS, "{}", "[]", '{"weight_map": 3}'])
def test_a_broken_index_is_named(tmp_path, capsys, text):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    for source in (path, tmp_path):
        assert main(["plan", str(source)]) == 1
        error = capsys.readouterr().err
        assert f"{path} is no index of a model in shards" in error
        assert len(error.splitlines()) == 1


def test_an_index_of_other_files_says_which_are_missing(tmp_path, capsys):
    state, names = sharded(tmp_path / "m")
    stale = {key: f"model-{i % 30 + 1:05}-of-00030.safetensors" for i, key in enumerate(state)}
    (tmp_path / "m/model.safetensors.index.json").write_text(json.dumps({"weight_map": stale}))
    assert main(["plan", str(tmp_path / "m")]) == 1
    error = capsys.readouterr().err
    assert "model-00001-of-00030.safetensors" in error and "and 26 more, not in" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("form", ["model-{:05}-of-{:05}.safetensors", "x-{:05}-of-{:05}.bin"])
def test_shards_need_no_index_if_all_are_there(tmp_path, capsys, form):
    state, names = sharded(tmp_path / "m", 3, form)
    (tmp_path / "m/training_args.bin").write_bytes(b"x")
    assert open_checkpoint(tmp_path / "m")[0].keys() == state.keys()
    (tmp_path / "m" / names[1]).unlink()
    assert main(["plan", str(tmp_path / "m")]) == 1
    error = capsys.readouterr().err
    assert f"holds 2 of 3 shards, without {names[1]}; fetch what is missing" in error


@pytest.mark.parametrize("name", ["epoch_9.pth", "last.ckpt", "anything.safetensors"])
def test_the_only_checkpoint_of_a_folder_is_taken(tmp_path, name):
    porting_files.save(tmp_path / name, porting_files.timm_state())
    (tmp_path / "log.txt").write_text("lr: 1e-4")
    (tmp_path / "plots").mkdir()
    found, provenance = open_checkpoint(tmp_path)
    assert found.keys() == porting_files.timm_state().keys()
    assert set(provenance.sha256) == {name}


def test_of_several_checkpoints_in_a_folder_one_must_be_named(tmp_path, capsys):
    for i in range(6):
        porting_files.save(tmp_path / f"epoch_{i}.pth", {"a": np.ones(2, np.float32)})
    assert main(["plan", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "holds epoch_0.pth, epoch_1.pth, epoch_2.pth, epoch_3.pth and 2 more; name one" in error


@pytest.mark.parametrize("inside", [False, True])
def test_an_unzipped_pth_is_named(tmp_path, capsys, inside):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.ones(2)}, tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "model.pth") as archive:
        archive.extractall(tmp_path / "out")
    folder = tmp_path / "out/model"
    assert main(["plan", str(folder.parent if inside else folder)]) == 1
    error = capsys.readouterr().err
    assert f"{folder} is a .pth that was unzipped (data.pkl and data/)" in error
    assert f"cd {folder.parent} && zip -0 -r model.pth model" in error
    with zipfile.ZipFile(folder.parent / "model.pth", "w") as archive:  # as the message says
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    assert list(open_checkpoint(folder.parent / "model.pth")[0]) == ["a"]
    assert list(open_checkpoint(folder.parent)[0]) == ["a"]  # beside its unzipped folder
