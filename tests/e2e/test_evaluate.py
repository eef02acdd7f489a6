"""The program that scores a run, from the command line."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def output(program, debug_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores") / "new"
    done = program(
        "clouds_jax.evaluate",
        f"--workdir={debug_run}",
        "--datasets=fake",
        "--limit=5",
        "--batch=2",
        f"--output={folder}",
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_it_writes_numbers_a_table_and_pictures(output):
    folder, done = output
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "fake_train_confusion.png", "fake_train_panels.png", "results.json", "results.md",
    ]  # fmt: skip
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    written = (folder / "results.md").read_text()
    assert len(table) == 3 and all(line in written for line in table)  # head, rule, one dataset
    assert f"{folder}/results.md" in done.stdout and "Worst images" in written
    with Image.open(folder / "fake_train_panels.png") as picture:
        assert picture.height > 5 * 300  # a row for each of the five images


def test_its_numbers_agree_with_its_confusion_matrix(output, debug_run):
    results = json.loads((output[0] / "results.json").read_text())
    assert results["about"]["run"] == str(debug_run)
    assert results["about"]["step"] == 1
    numbers = results["datasets"]["fake/train"]
    assert len(numbers["images"]) == 5
    matrix = np.asarray(numbers["confusion"])
    score = next(iter(numbers["scores"].values()))
    hit = np.diagonal(matrix)
    present = matrix.sum(1) > 0
    union = matrix.sum(1) + matrix.sum(0)[: len(matrix)] - hit
    assert numbers["miou"] == pytest.approx((hit[present] / union[present]).mean())
    assert score["accuracy"] == pytest.approx(hit.sum() / matrix.sum())


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--workdir=nowhere"], "there is no folder nowhere.* Give the --workdir of a run"),
        (["--datasets=fake/none"], "fake/none: no .*Build it: python -m clouds_jax.data.build"),
        (["--datasets=fake/train,camvid/val"], "camvid/val: no .*Build it: python -m clouds_jax"),
        (["--datasets=fkae"], "DATASETS has no 'fkae'; it has: "),
        (["--step=7"], r"has no checkpoint 7; it has: \[1\]"),
        (["--size=360"], "--size=360 is no size; write height x width"),
        (["--config=configs/warmup_gta.py:debug"], "was trained with .* leave --config away"),
    ],
    ids=["workdir", "split", "second", "dataset", "step", "size", "config"],
)
def test_a_mistake_is_one_clear_error(program, debug_run, tmp_path, flags, message):
    done = program(
        "clouds_jax.evaluate", f"--workdir={debug_run}", f"--output={tmp_path / 'out'}", *flags
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("evaluate: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_empty_files_is_named(program, debug_run, tmp_path):
    shutil.copytree(debug_run / "checkpoints", tmp_path / "run" / "checkpoints")
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    done = program("clouds_jax.evaluate", f"--workdir={tmp_path}/run", "--datasets=fake/train")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "evaluate: checkpoint 1 of" in done.stderr
    assert "No other checkpoint of the run is whole." in done.stderr
    assert len(done.stderr.splitlines()) < 20
