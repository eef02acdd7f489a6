"""The generate stage with a real Stable-Diffusion-2-shaped pipeline of tiny random weights."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

pytest.importorskip("torch")
if importlib.util.find_spec("diffusers") is None:  # importing it takes seconds in every worker
    pytest.skip("diffusers is not installed", allow_module_level=True)

import tiny_diffusion
import torch

from clouds_jax.data import records
from clouds_jax.data.part import Part
from clouds_jax.stages import shard_set
from porting.stages.images import pipelines, retries
from porting.stages.images.diffusion import Diffusion
from porting.stages.images.stage import Generate

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what transformers imports
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
PROMPTS = tiny_diffusion.PROMPTS
SIZE = (32, 48)
COUNT = 9


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_diffusion.pipeline()


@pytest.fixture(scope="module")
def model(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd2")
    pipeline.save_pretrained(folder)
    return folder


def settings(folder, **kwargs):
    found = dict(
        model=str(folder), revision="", variant="", scheduler="euler", steps=3, guidance=7.5,
        negative="", dtype="float16", batch=4, offload="", attention_slicing=False, size=SIZE,
        prompts=PROMPTS, count=COUNT, seed=11,
    )  # fmt: skip
    return Diffusion(**{**found, **kwargs})


def made(root, provider, shards=3, name="generated"):
    return Generate(root, name, provider, SIZE, shards, "zstd")


def contents(root):
    return {path.name: path.read_bytes() for path in sorted(root.glob("generated/*.array_record"))}


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """All images at once, batches of four."""
    root = tmp_path_factory.mktemp("whole")
    assert shard_set.fill(made(root, settings(model)), progress=False) == COUNT
    return root


def test_images_are_those_of_the_pipeline_with_the_noise_of_each(whole, model, pipeline):
    import diffusers

    scheduler = diffusers.EulerDiscreteScheduler.from_pretrained(model, subfolder="scheduler")
    by_hand = diffusers.StableDiffusionPipeline(
        **{**pipeline.components, "scheduler": scheduler}, requires_safety_checker=False
    )
    by_hand.set_progress_bar_config(disable=True)
    seen = []
    for i, example in enumerate(records.open_ref("generated/train", whole)):
        origin = example.origin
        assert example.key == f"generated/{i:06d}" and origin["prompt"] == PROMPTS[i % 3]
        assert origin["scheduler"] == "EulerDiscreteScheduler"
        assert origin["prediction_type"] == "v_prediction" and origin["seed"] == 11
        noise = torch.Generator("cpu").manual_seed(origin["noise_seed"])
        expected = by_hand(
            origin["prompt"], SIZE[0], SIZE[1], num_inference_steps=3, guidance_scale=7.5,
            generator=noise, output_type="np",
        ).images[0]  # fmt: skip
        # theirs depends on the batch in the last bits
        levels = np.abs(example.image - 255 * expected)
        assert levels.max() < 0.51 and (levels > 0.5).mean() < 0.01
        seen.append(example.image)
    assert np.std(seen, axis=0).mean() > 5  # of 255


@pytest.mark.parametrize("batch", [1, 2])
def test_the_batch_changes_no_pixel(whole, model, tmp_path, batch):
    shard_set.fill(made(tmp_path, settings(model, batch=batch)), progress=False)
    assert contents(tmp_path) == contents(whole)


def test_two_parts_and_a_run_that_was_stopped_end_with_the_same_bytes(whole, model, tmp_path):
    one = made(tmp_path / "parts", settings(model))
    for part in (Part(1, 2), Part(0, 2)):
        shard_set.fill(one, part, progress=False)
    assert contents(tmp_path / "parts") == contents(whole)

    stopped = made(tmp_path / "stopped", settings(model))
    make = stopped.load()

    def broken():
        made = make(1)
        yield next(made)
        raise KeyboardInterrupt

    stopped.folder.write(0, make(0))
    with pytest.raises(KeyboardInterrupt):
        stopped.folder.write(1, broken())
    assert stopped.folder.missing() == [1, 2]
    shard_set.fill(made(tmp_path / "stopped", settings(model)), progress=False)
    assert contents(tmp_path / "stopped") == contents(whole)


def test_a_set_of_other_parameters_or_weights_is_refused(whole, model, tmp_path):
    with pytest.raises(ValueError, match="parameters.guidance 7.5, now 2.0"):
        made(whole, settings(model, guidance=2.0)).folder.missing()
    with pytest.raises(ValueError, match="inputs.prompts"):
        made(whole, settings(model, prompts=PROMPTS[:2])).folder.missing()
    for path in model.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(model)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    index = tmp_path / "scheduler" / "scheduler_config.json"
    config = json.loads(index.read_text()) | {"beta_end": 0.02}
    index.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="parameters.revision"):
        made(whole, settings(tmp_path)).folder.missing()


def test_what_the_safety_checker_blanks_is_made_again(model, monkeypatch, tmp_path):
    """It takes the first image of two requests for unsafe, whatever is on it."""
    load = pipelines.load

    def with_checker(*args, **kwargs):
        pipe = load(*args, **kwargs)
        calls = []

        def check(images, device, dtype):
            calls.append(len(images))
            return images, [len(calls) <= 2 and i == 0 for i in range(len(images))]

        pipe.run_safety_checker = check
        return pipe

    monkeypatch.setattr(pipelines, "load", with_checker)
    one = made(tmp_path, settings(model, count=3), shards=1)
    shard_set.fill(one, progress=False)
    found = list(records.open_ref("generated/train", tmp_path))
    assert [example.origin["attempt"] for example in found] == [3, 1, 1]
    stats = one.folder.finish()["stats"]
    assert stats["remade"] == 2 and stats["blank_unsafe"] == 2 and stats["truncated"] == 0


def test_an_image_that_stays_blank_ends_with_the_reason(model, monkeypatch, tmp_path):
    monkeypatch.setattr(retries, "judge", lambda pixels, unsafe: "black")
    with pytest.raises(ValueError, match="image 0 is blank after 10 attempts.*\n.*10 x black"):
        shard_set.fill(made(tmp_path, settings(model, count=2, steps=1)), progress=False)


def test_a_prompt_beyond_the_text_encoder_is_counted(model, tmp_path):
    one = made(tmp_path, settings(model, count=1, prompts=(" ".join(PROMPTS * 3),)), shards=1)
    shard_set.fill(one, progress=False)
    assert one.folder.finish()["stats"]["truncated"] == 1


@pytest.mark.parametrize(
    "change, told",
    [
        ({"scheduler": "heun"}, "scheduler is 'heun'; it must be one of: '', 'euler'"),
        ({"steps": 0}, "steps is 0; it must be >= 1"),
        ({"offload": "disk"}, "offload is 'disk'; it must be one of"),
        ({"count": 0}, "count is 0"),
        ({"model": "./nowhere"}, "'./nowhere' is no folder"),
        ({"revision": "main"}, "only models on the hub have revisions"),
        ({"size": (33, 48)}, "multiples of 2"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(model, change, told):
    with pytest.raises((ValueError, OSError), match=told):
        one = settings(model, **change)
        one.describe()
        one.load()


def test_files_that_are_no_pipeline_are_named(model, pipeline, monkeypatch, tmp_path):
    import diffusers

    with pytest.raises(OSError, match="holds no pipeline: it has no model_index.json"):
        settings(tmp_path).describe()
    diffusers.DDPMPipeline(pipeline.unet, pipeline.scheduler).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="is a DDPMPipeline, no text-to-image pipeline"):
        settings(tmp_path / "other").load()
    for path in model.rglob("*"):
        if path.is_file():
            target = tmp_path / "damaged" / path.relative_to(model)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (tmp_path / "damaged/unet/diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 99)
    with pytest.raises(OSError, match="damaged cannot be read"):
        settings(tmp_path / "damaged").load()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="cannot be read from the hub"):
        settings("nobody/no-such-model").describe()


def test_settings_travel_to_other_processes(model):
    import pickle

    one = settings(model)
    assert pickle.loads(pickle.dumps(one)).describe() == one.describe()
    assert dataclasses.replace(one, batch=1).describe() == one.describe()
