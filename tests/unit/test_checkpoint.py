"""Weights on disk, checkpoints of runs, and what they refuse."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
import small_run

from clouds_jax import sharding
from clouds_jax.config import diff
from clouds_jax.training import checkpoint
from clouds_jax.training.state import abstract_state, make_state
from clouds_jax.weights import load_weights, save_weights

TREE = {
    "encoder": {
        "blocks": {0: {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
        "scale": np.asarray(2.5, np.float32),
        "half": np.ones(3, ml_dtypes.bfloat16),
    }
}
CONFIG = {"seed": 0, "steps": 10, "optimizer": {"lr": 1e-5, "schedule": "constant"}}


def test_weights_come_back_as_they_were(tmp_path):
    save_weights(tmp_path / "w", TREE, {"source": "here"})
    tree, provenance = load_weights(tmp_path / "w")
    assert provenance == {"source": "here"}
    encoder = tree["encoder"]
    np.testing.assert_array_equal(
        encoder["blocks"]["0"]["kernel"], TREE["encoder"]["blocks"][0]["kernel"]
    )
    assert encoder["scale"].shape == () and encoder["scale"].dtype == np.float32
    assert encoder["half"].dtype == ml_dtypes.bfloat16
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_parts_of_weights_can_be_read_alone(tmp_path):
    save_weights(tmp_path / "w", TREE | {"text": {"x": np.ones(2)}}, {"source": "here"})
    tree, provenance = load_weights(tmp_path / "w", ("text", "head"))
    assert list(tree) == ["text"] and provenance == {"source": "here"}
    np.testing.assert_array_equal(tree["text"]["x"], np.ones(2))
    assert load_weights(tmp_path / "w", ("head",))[0] == {}


def test_existing_weights_are_replaced_only_when_asked(tmp_path):
    save_weights(tmp_path / "w", TREE, {"version": 1})
    with pytest.raises(FileExistsError, match="choose another folder or ask to overwrite"):
        save_weights(tmp_path / "w", TREE, {"version": 2})
    save_weights(tmp_path / "w", TREE, {"version": 2}, overwrite=True)
    assert load_weights(tmp_path / "w")[1] == {"version": 2}


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="no weights folder"):
        save_weights(tmp_path / "home", TREE, {}, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()


def test_weights_that_could_not_be_written_leave_nothing(tmp_path):
    with pytest.raises(TypeError):
        save_weights(tmp_path / "w", TREE, {"not json": object()})
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m porting convert"):
        load_weights(tmp_path / "w")


def test_a_folder_without_provenance_is_no_weights_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no weights folder"):
        load_weights(tmp_path)


def checkpoints(folder, **options):
    metadata = {"config": CONFIG | options.pop("config", {}), "commit": "abc"}
    return checkpoint.RunCheckpoints(
        folder, keep=options.pop("keep", 2), metadata=metadata, **options
    )


def small(devices=None, seed=0):
    """Shapes and arrays of the small run's state on some of the devices."""
    mesh = sharding.make_mesh(devices)
    arguments = (small_run.Model, small_run.optimizer())
    options = dict(seed=seed, mesh=mesh, rules=((".*", "replicate"),))
    _, shape, _ = abstract_state(*arguments, **options)
    return shape, make_state(*arguments, **options)[1]


def same(a, b):
    a, b = (x.replace(key=jax.random.key_data(x.key)) for x in (a, b))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_state_and_its_step_come_back(tmp_path):
    shape, state = small()
    run = checkpoints(tmp_path)
    assert run.latest is None and checkpoint.latest_step(tmp_path) == 0
    run.save(3, state, window={"steps": 1})
    run.close()
    again = checkpoints(tmp_path)
    assert again.latest == checkpoint.latest_step(tmp_path) == 3
    restored, metadata = again.restore(shape)
    same(restored, state)
    assert metadata["window"] == {"steps": 1} and metadata["commit"] == "abc"


def test_a_state_donated_while_it_is_saved_is_saved_as_it_was(tmp_path):
    step, state, _, mesh = small_run.make()
    batch = small_run.batch(mesh)
    before = jax.device_get(state.replace(key=jax.random.key_data(state.key)))
    run = checkpoints(tmp_path)
    run.save(0, state)
    for _ in range(5):
        state, _ = step(state, batch)
    run.close()
    restored, _ = checkpoints(tmp_path).restore(small()[0])
    restored = restored.replace(key=jax.random.key_data(restored.key))
    for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_state_is_restored_onto_another_mesh(tmp_path):
    _, state = small(jax.devices()[:2])
    run = checkpoints(tmp_path)
    run.save(1, state)
    run.close()
    shape, _ = small(jax.devices()[1:2])
    restored, _ = checkpoints(tmp_path).restore(shape)
    same(restored, state)
    assert restored.step.sharding.device_set == {jax.devices()[1]}


def test_only_the_newest_checkpoints_stay(tmp_path):
    _, state = small()
    run = checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        run.save(step, state)
    run.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]


def scored(folder, **steps):
    """What `training.logs.MetricsWriter.best` writes."""
    best = {f"eval/{ref}/miou": {"step": step, "value": 0.5} for ref, step in steps.items()}
    (folder / checkpoint.BEST).write_text(json.dumps(best))


def test_the_best_checkpoint_of_each_dataset_stays(tmp_path):
    _, state = small()
    run = checkpoints(tmp_path, keep=1, keep_best=True)
    for step in (1, 2, 3, 4, 5):
        run.save(step, state)
        run.wait()
        if step == 1:
            scored(tmp_path, a=1)
        if step == 3:
            scored(tmp_path, a=3, b=1)
    run.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "3", "5"]
    assert checkpoint.load_run(tmp_path, "best:a")[1]["step"] == 3
    assert checkpoint.load_run(tmp_path, "best:b")[1]["step"] == 1
    assert checkpoint.load_run(tmp_path, "5")[1]["step"] == 5
    with pytest.raises(ValueError, match="scored best:a, best:b; best does not say which"):
        checkpoint.load_run(tmp_path, "best")
    scored(tmp_path, a=3)
    assert checkpoint.load_run(tmp_path, "best")[1]["step"] == 3


@pytest.mark.parametrize(
    "step, error, message",
    [
        ("newest", ValueError, "'newest'; it must be a number, best, or best:NAME/SPLIT"),
        ("best:b", ValueError, "scored best:a; b does not say which"),
        ("best", FileNotFoundError, "no checkpoint 7; it has: .4..*keep_best"),
    ],
)
def test_a_step_that_names_no_checkpoint_is_refused(tmp_path, step, error, message):
    _, state = small()
    run = checkpoints(tmp_path)
    run.save(4, state)
    run.close()
    scored(tmp_path, a=7)
    with pytest.raises(error, match=message):
        checkpoint.load_run(tmp_path, step)


def test_half_a_checkpoint_is_no_checkpoint(tmp_path):
    _, state = small()
    run = checkpoints(tmp_path)
    run.save(1, state)
    run.close()
    # What a kill during the save of step 2 leaves.
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    again = checkpoints(tmp_path)
    assert again.latest == 1
    assert checkpoint.load_run(tmp_path)[1]["step"] == 1
    again.save(2, state)
    again.close()
    assert checkpoints(tmp_path).latest == 2


@pytest.fixture
def three_steps(tmp_path):
    """A run's folder with the checkpoints 1, 2, 3, and the shape of their state."""
    shape, state = small()
    run = checkpoints(tmp_path, keep=3)
    for step in (1, 2, 3):
        run.save(step, state)
    run.close()
    return tmp_path, shape


def cut(folder):
    """Cuts the largest file of a folder in half."""
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def test_of_a_damaged_checkpoint_the_whole_ones_are_named(three_steps):
    folder, shape = three_steps
    cut(folder / "checkpoints" / "3")
    message = "checkpoint 3 of .* cannot be read: (?s:.*)Whole: 1, 2. To go on from step 2, move "
    with pytest.raises(checkpoint.DamagedCheckpoint, match=message):
        checkpoint.load_run(folder)
    with pytest.raises(checkpoint.DamagedCheckpoint, match=message):
        checkpoints(folder, keep=3).restore(shape)
    assert checkpoint.load_run(folder, 2)[1]["step"] == 2
    cut(folder / "checkpoints" / "2")
    with pytest.raises(checkpoint.DamagedCheckpoint, match="Whole: 1. To go on from step 1"):
        checkpoint.load_run(folder)


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
    _, state = small()
    run = checkpoints(tmp_path)
    run.save(1, state)
    run.close()
    changed = {"optimizer": {"lr": 1e-4, "schedule": "constant"}, "seed": 1}
    saved = checkpoints(tmp_path, config=changed).metadata()
    message = (
        r"has checkpoints of another config \(optimizer.lr 1e-05, now 0.0001; seed 0, now 1\);"
        r" restore the value, or begin a new run"
    )
    with pytest.raises(ValueError, match=message):
        diff.check_config(saved["config"], changed, where=str(tmp_path))


@pytest.mark.parametrize(
    "changes, refused",
    [
        ({}, []),
        ({"steps": 20}, []),
        ({"log_every": 7, "evals": {"camvid/test": 3}, "debug": {"nans": True}}, []),
        ({"head": {"dim": 8}}, ["head.dim absent, now 8"]),
        ({"optimizer": {"lr": 1e-5}}, ['optimizer.schedule "constant", now absent']),
        (
            {"steps": 20, "optimizer": {"lr": 1e-5, "schedule": "poly"}},
            ['optimizer.schedule "constant", now "poly"', "steps 10, now 20"],
        ),
    ],
)
def test_keys_that_change_nothing_learned_may_change(changes, refused):
    assert diff.changed_keys(CONFIG, CONFIG | changes) == refused


def test_what_is_refused_says_how_to_go_on():
    with pytest.raises(ValueError, match="--workdir=NEW --config.init_from=runs/a"):
        diff.check_config(CONFIG, CONFIG | {"seed": 1}, where="runs/a")


def test_a_moved_folder_of_weights_is_not_refused_but_named():
    before = CONFIG | {"encoder": {"weights": "a"}, "selftrain": {"enabled": True, "chunk": 8}}
    after = CONFIG | {"encoder": {"weights": "b"}, "selftrain": {"enabled": True, "chunk": 2}}
    assert diff.changed_keys(before, after) == []
    assert diff.moved_weights(before, after) == ['encoder.weights "a", now "b"']


JOINT = {
    "selftrain": {"enabled": True, "labels": "online"},
    "data": {"generated": {"flip": 0.5}},
}


def test_a_run_from_before_the_joint_phase_goes_on():
    off = {"selftrain": {"enabled": False, "labels": "online"}}
    assert diff.changed_keys({"seed": 0}, {"seed": 0} | JOINT | off) == []


def test_settings_of_the_joint_phase_count_once_it_is_on():
    changed = {"selftrain": {"enabled": True, "labels": "teacher"}}
    found = diff.changed_keys(JOINT, JOINT | changed)
    assert found == ['selftrain.labels "online", now "teacher"']
    refused = diff.changed_keys({"seed": 0}, {"seed": 0} | JOINT)
    assert "selftrain.enabled false, now true" in refused


def test_a_run_without_checkpoints_or_without_that_one_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no checkpoints"):
        checkpoint.load_run(tmp_path)
    _, state = small()
    run = checkpoints(tmp_path)
    run.save(4, state)
    run.close()
    with pytest.raises(FileNotFoundError, match=r"has no checkpoint 5; it has: \[4\]"):
        checkpoint.load_run(tmp_path, step=5)
