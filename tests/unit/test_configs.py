"""The configs: same keys everywhere, the paper's numbers, a debug mode, a lock."""

import importlib.util
import json

import pytest
from ml_collections import ConfigDict

from clouds_jax.config import diff
from clouds_jax.config.experiment import read_experiment
from clouds_jax.config.initial_weights import initial_weights
from clouds_jax.config.model import read_model
from clouds_jax.data import records
from clouds_jax.data.datasets import DATASETS

NAMES = ("camvid", "camvid_fpn", "cityscapes", "gta", "streets", "synthia")
# Branches whose keys are names of datasets, or belong to one kind of head.
OPEN = ("data.batch", "evals", "head")


@pytest.fixture
def load(root, monkeypatch):
    monkeypatch.syspath_prepend(root)  # as `python -m` does with the folder it is started in

    def of(name, mode=""):
        path = root / "configs" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"config_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_config(mode) if name != "base" else module.get_config()

    return of


def check(config):
    """The experiment, as a training reads and checks it."""
    experiment = read_experiment(config)
    experiment.padding(2)
    return experiment


def keys(config, prefix=""):
    found = set()
    for key, value in config.items():
        name = f"{prefix}{key}"
        found.add(name)
        if isinstance(value, ConfigDict) and name not in OPEN:
            found |= keys(value, name + ".")
    return found


def test_all_configs_are_listed_here(root):
    assert {p.stem for p in (root / "configs").glob("warmup_*.py")} == {
        f"warmup_{name}" for name in NAMES
    }


@pytest.mark.parametrize("mode", ["", "debug"])
@pytest.mark.parametrize("name", NAMES)
def test_a_config_adds_and_drops_no_key(load, name, mode):
    assert keys(load(f"warmup_{name}", mode)) == keys(load("base"))


@pytest.mark.parametrize("name", NAMES)
def test_a_config_can_be_built_and_passes_the_checks(load, name):
    config = load(f"warmup_{name}")
    experiment = check(config)
    experiment.optimizer.make()
    json.dumps(experiment.source)
    refs = [*config.data.batch, *config.evals]
    for dataset, split in (records.parse_ref(ref) for ref in refs):
        assert not DATASETS[dataset].splits or split in DATASETS[dataset].splits


@pytest.mark.parametrize("name", NAMES)
def test_debug_mode_is_small_and_needs_no_files(load, name):
    config = load(f"warmup_{name}", "debug")
    check(config)
    assert config.steps == 4
    assert (config.encoder.name, config.encoder.weights) == ("convnext_debug", "")
    assert list(config.data.batch) == ["fake"] and list(config.evals) == ["fake/train"]


@pytest.mark.parametrize("name", NAMES)
def test_other_modes_are_refused(load, name):
    with pytest.raises(ValueError, match="'quick' is no mode of this config; the only one is"):
        load(f"warmup_{name}", "quick")


@pytest.mark.parametrize(
    "name, steps, lr, schedule, size",
    [
        ("gta", 40_000, 1e-5, "constant", (1052, 1914)),
        ("synthia", 30_000, 1e-5, "poly", (760, 1280)),
        ("cityscapes", 5_000, 1e-4, "constant", (1024, 2048)),
    ],
)
def test_the_papers_runs_have_the_papers_numbers(load, name, steps, lr, schedule, size):
    config = load(f"warmup_{name}")
    assert (config.steps, config.optimizer.lr) == (steps, lr)
    assert config.optimizer.schedule == schedule
    assert config.data.initial_size == size
    assert sum(config.data.batch.values()) == 8
    assert config.data.crop == (768, 768) and config.data.crop_offsets == "diagonal"
    assert (config.loss.cls, config.loss.mask, config.loss.dice) == (2.0, 5.0, 5.0)
    assert (config.optimizer.clip_norm, config.optimizer.weight_decay) == (0.01, 0.05)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("encoder.name", "convnext_big", "ENCODERS has no 'convnext_big'; it has: convnext_debug"),
        ("head.name", "segformer", "must be one of: mask2former, fpn"),
        ("head.num_queries", 5, "19 classes need at least 19"),
        (
            "head.classifier",
            "clip",
            "classifier is 'clip'; it must be one of: linear, text, pooled",
        ),
        ("head.ensemble", {"enabled": True, "alpha": 1.5}, "alpha is 1.5; a share lies in 0..1"),
        ("head.ensemble", {"enabled": True, "trained_space": "pascal"}, "SPACES has no 'pascal'"),
        ("data.crop", (64, 50), "multiples of 32"),
        ("data.batch.fake", 0, "a batch has 0 images; it needs at least 1"),
        ("label_space", "pascal", "pascal"),
        ("keep", 0, "config.keep is 0; it must be at least 1"),
        ("matmul_precision", "tf32", "is 'tf32'; it must be one of: bfloat16, tensorfloat32, f"),
        ("head.dtype", "float16", "dtype is 'float16'; it must be one of: float32, bfloat16"),
        ("evals", {"fake/train": 0}, "'fake/train'"),
    ],
)
def test_values_that_could_only_fail_later_are_refused_at_once(load, key, value, message):
    config = load("warmup_gta", "debug")
    if key == "evals":
        config.evals = value
    elif isinstance(value, dict):
        config.update_from_flattened_dict({f"{key}.{name}": x for name, x in value.items()})
    else:
        config.update_from_flattened_dict({key: value})
    with pytest.raises((ValueError, KeyError), match=message):
        check(config)


@pytest.mark.parametrize("switch", ["head.classifier", "head.ensemble.enabled"])
def test_only_encoders_with_a_text_tower_can_compare_with_names(load, switch):
    config = load("warmup_gta", "debug")
    value = "text" if switch == "head.classifier" else True
    config.update_from_flattened_dict({switch: value})
    check(config)
    config.encoder.name = "efficientnet_lite0"
    with pytest.raises(ValueError, match="'efficientnet_lite0' has no text tower.*convnext_large"):
        check(config)


def test_a_config_from_before_there_were_class_heads_describes_the_same_model(load):
    config = load("warmup_gta", "debug").to_dict()
    older = {key: value for key, value in config.items()}
    older["head"] = {k: v for k, v in config["head"].items() if k not in ("classifier", "ensemble")}
    assert read_model(diff.with_added_keys(older)) == read_model(config)
    assert read_model(older).ensemble is None
    assert not diff.changed_keys(older, config)
    changed = config | {"head": config["head"] | {"classifier": "text"}}
    assert diff.changed_keys(older, changed) == ['head.classifier "linear", now "text"']


def test_a_run_without_encoder_weights_names_the_command_that_makes_them(load):
    config = load("warmup_gta")
    config.encoder.weights = ""
    with pytest.raises(ValueError, match="python -m porting convert"):
        initial_weights(read_experiment(config))
    config.encoder.weights = "no/such/folder"
    with pytest.raises(FileNotFoundError, match="python -m porting convert"):
        initial_weights(read_experiment(config))
