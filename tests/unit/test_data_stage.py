"""Sets of shards that a stage fills: resuming, parts, refusals."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from clouds_jax.data import records
from clouds_jax.data.part import Part
from clouds_jax.stages import runner, shard_set
from clouds_jax.stages.memory import host_memory
from clouds_jax.stages.shard_set import Folder, StageError


def folder(root, ref="made/train", examples=10, shards=4, **changes):
    plan = dict(stage="test", parameters={"a": 1, "b": {"c": 2}}, inputs={"in": "x"}) | changes
    return Folder(root, ref, examples=examples, shards=shards, **plan)


@dataclasses.dataclass
class Numbers:
    """Writes the number of each record; dies at the record `until`."""

    folder: Folder
    until: int = 10**9
    loaded: int = 0

    def load(self):
        self.loaded += 1

        def make(shard):
            for index in self.folder.indices(shard):
                if index == self.until:
                    raise KeyboardInterrupt
                yield (
                    records.encode(records.Example(f"n/{index}", pseudo=ONE * index)),
                    {"sum": index},
                )

        return make

    def memory(self):
        return {"host": host_memory()}


ONE = np.ones((1, 1), np.uint8)


def contents(root):
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.name.endswith(".log.jsonl")
    }


def test_all_records_come_in_their_order_and_the_summary_adds_up(tmp_path):
    made = Numbers(folder(tmp_path))
    assert shard_set.fill(made, progress=False) == 10
    assert [e.key for e in records.open_ref("made/train", tmp_path)] == [
        f"n/{i}" for i in range(10)
    ]
    summary = records.read_summary("made/train", tmp_path)
    assert summary["stats"] == {"sum": 45} and summary["examples"] == 10
    lines = (tmp_path / "made" / "train.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["shard"] for line in lines] == [0, 1, 2, 3]
    assert shard_set.fill(made, progress=False) == 0 and made.loaded == 1


@pytest.mark.parametrize("until", [0, 1, 4, 7, 9])
def test_an_interrupted_stage_ends_with_the_same_bytes(tmp_path, until):
    shard_set.fill(Numbers(folder(tmp_path / "straight")), progress=False)
    with pytest.raises(KeyboardInterrupt):
        shard_set.fill(Numbers(folder(tmp_path / "torn"), until), progress=False)
    with pytest.raises(FileNotFoundError, match="no .*summary"):  # not to be read by mistake
        records.open_ref("made/train", tmp_path / "torn")
    shard_set.fill(Numbers(folder(tmp_path / "torn")), progress=False)
    assert contents(tmp_path / "torn") == contents(tmp_path / "straight")


def test_a_shard_that_was_left_half_written_is_made_anew(tmp_path):
    made = Numbers(folder(tmp_path))
    (tmp_path / "made" / f".{made.folder.path(1).name}.77.tmp").write_bytes(b"half")
    shard_set.fill(made, progress=False)
    assert not list((tmp_path / "made").glob(".*.tmp"))


def test_parts_in_any_order_give_the_same_bytes(tmp_path):
    shard_set.fill(Numbers(folder(tmp_path / "whole")), progress=False)
    for text in ("3/3", "1/3", "2/3"):
        made = Numbers(folder(tmp_path / "parts"))
        shard_set.fill(made, shard_set.parse_part(text), progress=False)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_parts_of_parts_cover_each_shard_once():
    parts = [Part(1, 3).split(i, 4) for i in range(4)]
    found = sorted(shard for part in parts for shard in part.of(50))
    assert found == list(Part(1, 3).of(50))


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="must be I/N with 1 <= I <= N"):
        shard_set.parse_part(text)


@pytest.mark.parametrize(
    "changes, named",
    [
        (dict(parameters={"a": 1, "b": {"c": 3}}), "parameters.b.c 2, now 3"),
        (dict(parameters={"a": 1}), "parameters.b.c 2, now absent"),
        (dict(inputs={"in": "y"}), 'inputs.in "x", now "y"'),
        (dict(examples=11), "examples 10, now 11"),
        (dict(shards=5), "shards 4, now 5"),
    ],
)
def test_two_sets_of_parameters_do_not_mix(tmp_path, changes, named):
    folder(tmp_path)
    with pytest.raises(StageError, match=named):
        folder(tmp_path, **changes)


@dataclasses.dataclass
class Refusing(Numbers):
    """Finds out that its parameters are wrong when it loads its model."""

    def load(self):
        raise ValueError("no such teacher")


def test_parameters_that_were_refused_do_not_bar_the_right_ones(tmp_path):
    with pytest.raises(ValueError, match="no such teacher"):
        shard_set.fill(Refusing(folder(tmp_path, parameters={"teacher": True})))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        shard_set.fill(Numbers(folder(tmp_path), until=9))
    with pytest.raises(ValueError, match="no such teacher"):  # of the shards that are there
        shard_set.fill(Refusing(folder(tmp_path)))
    assert shard_set.fill(Numbers(folder(tmp_path))) > 0


def test_a_process_that_was_overtaken_by_other_parameters_writes_nothing(tmp_path):
    made = Numbers(folder(tmp_path))
    (tmp_path / "made" / "train.manifest.json").unlink()
    folder(tmp_path, parameters={"a": 2})
    with pytest.raises(StageError, match="parameters.a 2, now 1"):
        shard_set.fill(made, progress=False)
    assert not list((tmp_path / "made").glob("*.array_record"))


def test_shards_of_somebody_else_are_not_taken_over(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "train-00000-of-00001.array_record").write_bytes(b"x")
    with pytest.raises(StageError, match="1 shards of train without a manifest"):
        folder(tmp_path)


def test_a_shard_that_was_cut_short_later_is_named(tmp_path):
    made = Numbers(folder(tmp_path))
    shard_set.fill(made, progress=False)
    path = made.folder.path(2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StageError, match="00002-of-00004.* is damaged. Remove it, then run again"):
        shard_set.fill(made, progress=False)
    path.unlink()
    assert shard_set.fill(made, progress=False) == 2


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(StageError, match="its input is empty"):
        folder(tmp_path, examples=0)


def test_a_stage_travels_to_another_process(tmp_path):
    made = pickle.loads(pickle.dumps(Numbers(folder(tmp_path))))
    assert shard_set.fill(made, progress=False) == 10


def test_flags_of_running_are_taken_out_of_a_command():
    words = [
        "--ref",
        "a",
        "--shard",
        "1/2",
        "--ray",
        "--shards=x",
        "--processes=3",
        "--size",
        "4",
        "5",
    ]
    assert runner.without_running(words) == ["--ref", "a", "--shards=x", "--size", "4", "5"]
