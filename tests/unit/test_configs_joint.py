"""The configs of the joint phase: same keys, presets that differ where they say so, checks."""

import importlib

import pytest

from clouds_jax.config.experiment import read_experiment
from clouds_jax.selftrain import refine_rules

MODES = {
    "joint_gta": ("", "paper", "fixed", "debug"),
    "joint_synthia": ("", "debug"),
    "joint_cityscapes": ("", "debug"),
    "joint_streets": ("", "teacher", "online", "debug"),
}


@pytest.fixture
def load(root, monkeypatch):
    monkeypatch.syspath_prepend(root)  # as `python -m` does with the folder it is started in
    return lambda name, mode: importlib.import_module(f"configs.{name}").get_config(mode)


def check(config):
    """The experiment, as a training reads and checks it."""
    experiment = read_experiment(config)
    experiment.padding(2)
    return experiment


@pytest.mark.parametrize("name, mode", [(n, m) for n, modes in MODES.items() for m in modes])
def test_a_joint_config_passes_the_checks(load, name, mode):
    config = load(name, mode)
    assert config.selftrain.enabled
    check(config).prepare()


def test_all_joint_configs_are_listed_here(root):
    assert {p.stem for p in (root / "configs").glob("joint_*.py")} == {*MODES}


@pytest.mark.parametrize("preset", refine_rules.PRESETS)
def test_a_preset_of_the_configs_is_that_of_the_code(load, preset):
    config = load("joint_gta", preset)
    rules = read_experiment(config).selftrain.labels.rules
    assert rules == refine_rules.PRESETS[preset]
    assert rules.min_area == 5000 and rules.num_points == 5
    every = {"release": 100, "paper": 1, "fixed": 1}
    assert config.selftrain.teacher.every == every[preset]


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("labels", "magic", "labels is 'magic'; allowed are: teacher, online, stored"),
        ("rules.num_points", 9_000, "min_area is 5000 and num_points 9000; a component of more"),
        ("map", "label", "labels of generated images are 'label' of 19 classes"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(load, key, value, message):
    config = load("joint_gta", "")
    config.selftrain.labels = "stored"
    config.selftrain.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        check(config)


@pytest.mark.parametrize(
    "devices, accumulate, padding",
    [(1, 1, 0), (2, 1, 0), (3, 1, 1), (4, 1, 4), (8, 1, 8), (16, 1, 24),
     (1, 2, 0), (1, 4, 4), (2, 2, 4)],
)  # fmt: skip
def test_the_paper_s_batch_fits_any_devices(load, devices, accumulate, padding):
    """6 + 2 images; rows of padding make them a multiple of devices and portions."""
    config = load("joint_gta", "")
    config.accumulate = accumulate
    assert read_experiment(config).padding(devices) == padding


def test_a_batch_without_generated_images_is_refused(load):
    config = load("joint_gta", "")
    config.data.generated.batch = {"generated/train": 0}
    with pytest.raises(ValueError, match="a batch has 0 images"):
        check(config)
