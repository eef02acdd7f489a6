"""The street domains as datasets: one each, and no scene in two splits."""

import pickle
import subprocess
import sys

from clouds_jax import streets
from clouds_jax.data.datasets import DATASETS, get_dataset
from clouds_jax.data.datasets import streets as dataset


def test_each_domain_is_a_dataset():
    expected = {f"streets_{name.replace('-', '_')}" for name in streets.DOMAINS}
    assert {spec.name for spec in dataset.SPECS} == expected
    assert expected <= set(DATASETS)


def test_scenes_of_train_and_val_differ():
    spec = get_dataset("streets_oldtown_day")
    scenes = {
        split: [source.render.args for source in spec.examples(None, split, count=5)]
        for split in ("train", "val")
    }
    seeds = {split: {args[1] for args in found} for split, found in scenes.items()}
    assert not seeds["train"] & seeds["val"]
    other = {source.render.args[1] for source in spec.examples(None, "train", seed=1, count=2)}
    assert not other & (seeds["train"] | seeds["val"])


def test_count_and_defaults():
    spec = get_dataset("streets_newtown_fog")
    assert len(spec.examples(None, "train")) == 400
    assert len(spec.examples(None, "val")) == 50
    sources = spec.examples(None, "val", count=12)
    keys = [source.key for source in sources]
    assert keys == sorted(set(keys)) and len(keys) == 12
    assert all(key.startswith("streets_newtown_fog/") for key in keys)


def test_sources_travel_to_other_processes():
    source = get_dataset("streets_suburb_snow").examples(None, "val", count=1)[0]
    render = pickle.loads(pickle.dumps(source)).render
    assert render.func is streets.render
    assert render.args == source.render.args == ("suburb-snow", 1, 0, (512, 1024))


def test_the_renderer_is_loaded_when_the_first_street_is_drawn(root):
    code = (
        "import sys, clouds_jax.data.datasets as d\n"
        "name = 'clouds_jax.streets.renderer'\n"
        "(source,) = d.get_dataset('streets_oldtown_day').examples(None, 'val', count=1)\n"
        "print(name in sys.modules)\n"
        "source.render()\n"
        "print(name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr
