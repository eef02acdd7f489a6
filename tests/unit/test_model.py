"""The public face: what `import clouds_jax` gives."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import clouds_jax
from clouds_jax import sharding
from clouds_jax.config.experiment import read_experiment
from clouds_jax.data.classes import get_space
from clouds_jax.evaluation import protocols
from clouds_jax.training import checkpoint, optim
from clouds_jax.training.state import make_state
from clouds_jax.weights import save_weights
from configs import warmup_camvid_fpn

SIZE = (40, 56)  # no multiple of 32


@pytest.fixture(scope="module")
def model():
    return clouds_jax.build("convnext_debug", head="fpn", dim=16)


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run as it is saved now, and one from before its classes were stored by value."""
    experiment = read_experiment(warmup_camvid_fpn.get_config("debug"))
    mesh = sharding.make_mesh(jax.devices()[:1])
    tx = optim.make_optimizer(lr=1e-3, steps=2, weight_decay=0.0, clip_norm=1.0)
    _, state, _ = make_state(experiment.build, tx, seed=0, mesh=mesh, rules=((".*", "replicate"),))
    about = {"config": experiment.source}
    folders = []
    for extra in ({"space": experiment.model.space.as_json()}, {}):
        folder = tmp_path_factory.mktemp("run")
        saved = checkpoint.RunCheckpoints(folder, keep=1, metadata=about | extra)
        saved.save(1, state)
        saved.close()
        folders.append(folder)
    return folders


def test_a_picture_is_read_in_every_form_and_gives_the_same_map(model, picture, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    want = model.predict(picture).label
    assert want.shape == SIZE and want.dtype == np.uint8 and want.max() < 19
    for form in (path, str(path), Image.fromarray(picture), np.dstack([picture, picture[..., :1]])):
        np.testing.assert_array_equal(model.predict(form).label, want)
    several = model.predict([path, picture])
    assert len(several) == 2 and model.predict([]) == []
    np.testing.assert_array_equal(several[1].label, want)


def test_grey_transparent_and_turned_pictures_are_what_a_viewer_shows(model, picture, tmp_path):
    grey = picture[..., 0]
    want = model.predict(np.repeat(grey[..., None], 3, -1)).label
    np.testing.assert_array_equal(model.predict(Image.fromarray(grey)).label, want)
    np.testing.assert_array_equal(model.predict(grey).label, want)
    alpha = Image.fromarray(picture).convert("RGBA")
    np.testing.assert_array_equal(model.predict(alpha).label, model.predict(picture).label)
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # 90 degrees to the right
    Image.fromarray(picture).save(turned, exif=exif)
    assert model.predict(turned).label.shape == SIZE[::-1]


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((4, 4, 5), np.uint8), r"array \(4, 4, 5\) of uint8; allowed are uint8 arrays"),
        (np.zeros((4, 4, 2), np.uint8), r"array \(4, 4, 2\) of uint8"),
        ("none.jpg", "none.jpg does not exist"),
    ],
)
def test_what_is_no_picture_is_one_clear_error(model, image, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        model.predict(image)


def test_scores_are_those_of_the_class_map(model, picture):
    result = model.predict(picture)
    assert result.scores.shape == (*SIZE, 19) and result.scores.dtype == np.float16
    assert (result.scores.argmax(-1) == result.label).mean() > 0.99  # float16 makes ties
    assert result.classes == model.classes == get_space("cityscapes19").names
    assert sum(result.shares.values()) == pytest.approx(1)


def test_iou_is_that_of_the_confusion(model, picture):
    result = model.predict(picture)
    assert result.iou(result.label)["mean"] == 1
    label = result.label.copy()
    label[:20] = 255
    assert result.iou(label)["mean"] == 1  # ignored pixels do not count
    label[20:] = (label[20:] + 1) % 19
    assert result.iou(label)["mean"] == 0
    with pytest.raises(ValueError, match="the label is .3, 3., the prediction .40, 56."):
        result.iou(np.zeros((3, 3), np.uint8))


def test_an_overlay_has_the_picture_and_a_legend(model, picture, tmp_path):
    result = model.predict(picture)
    plain = result.overlay(legend=False)
    assert plain.size == SIZE[::-1]
    assert result.overlay().size[1] > SIZE[0]
    result.overlay().save(tmp_path / "overlay.png")


def test_features_are_those_of_the_module_without_the_padding(model, picture):
    features = model.features(picture)
    assert [features[f"res{i}"].shape[:2] for i in (2, 3, 4, 5)] == [
        (10, 14), (5, 7), (3, 4), (2, 2)
    ]  # fmt: skip
    whole = model.module.encode(jax.numpy.asarray(picture[None]))["res2"][0]
    np.testing.assert_allclose(features["res2"], whole[:10, :14], rtol=1e-4, atol=1e-4)


def test_a_saved_model_loads_without_a_config_and_predicts_the_same(model, picture, tmp_path):
    names = ("lane", "kerb", "rest")
    own = clouds_jax.build("convnext_debug", names, head="fpn", dim=16, seed=3)
    own.save(tmp_path / "w")
    again = clouds_jax.load(tmp_path / "w")
    assert again.classes == names and again.config == own.config
    np.testing.assert_array_equal(again.predict(picture).label, own.predict(picture).label)


def test_a_converted_folder_of_encoder_and_head_describes_itself(picture, tmp_path):
    built = clouds_jax.build(
        "convnext_debug", num_queries=21, dim=16, num_heads=2, pixel_layers=1, pixel_ffn=16,
        decoder_layers=3, decoder_ffn=16, num_points=2,
    )  # fmt: skip
    target = {"encoder": "convnext_debug", "head": dataclasses.asdict(built.config.head),
              "classes": 19}  # fmt: skip
    save_weights(tmp_path / "w", nnx.to_pure_dict(built.state), {"target": target})
    loaded = clouds_jax.load(tmp_path / "w")
    np.testing.assert_array_equal(loaded.predict(picture).label, built.predict(picture).label)


def test_runs_of_now_and_of_before_load(runs, picture):
    now, before = map(clouds_jax.load, runs)
    assert now.classes == before.classes == get_space("camvid11").names
    np.testing.assert_array_equal(now.predict(picture).label, before.predict(picture).label)
    assert now.about["step"] == 1


def test_what_cannot_be_loaded_says_what_was_found_and_what_to_do(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDS_MODELS", str(tmp_path))
    file = tmp_path / "weights.pth"
    file.write_bytes(b"x")
    save_weights(tmp_path / "encoder", {"encoder": {"w": np.zeros(1)}},
                 {"target": {"encoder": "convnext_tiny"}})  # fmt: skip
    assert clouds_jax.list_models("enc*") == ["encoder"]
    for source, options, message in (
        ("no/such", {}, "no folder no/such; models by name: encoder. Give the --workdir"),
        (file, {}, "weights.pth is a file; .*python -m porting convert"),
        ("encoder", {}, "holds no whole model but: encoder"),
        (tmp_path / "encoder", {"teacher": True}, "only runs have steps and teachers"),
        (runs[0], {"step": 7}, r"has no checkpoint 7; it has: \[1\]"),
        (runs[0], {"teacher": True}, "has no teacher at step 1"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            clouds_jax.load(source, **options)


def test_a_built_model_can_take_converted_encoder_weights(model, tmp_path):
    tree = nnx.to_pure_dict(model.state)
    save_weights(tmp_path / "e", {"encoder": tree["encoder"]}, {})
    other = clouds_jax.build("convnext_debug", head="fpn", dim=16, seed=1, weights=tmp_path / "e")
    stem = lambda m: jax.tree.leaves(nnx.to_pure_dict(m.state)["encoder"])  # noqa: E731
    for ours, theirs in zip(stem(other), stem(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="Are these the weights of convnext_tiny"):
        clouds_jax.build("convnext_tiny", head="fpn", dim=16, weights=tmp_path / "e")


def test_names_are_listed_and_wrong_ones_answered():
    assert "convnext_large_d_320" in clouds_jax.list_encoders("convnext*")
    assert "streets_oldtown_night" in clouds_jax.list_datasets("streets_*_night")
    with pytest.raises(KeyError, match="ENCODERS has no 'vgg'"):
        clouds_jax.build("vgg")
    with pytest.raises(ValueError, match="head is 'unet'; it must be one of: mask2former, fpn"):
        clouds_jax.build("convnext_debug", head="unet")
    with pytest.raises(AttributeError, match="clouds_jax has no 'lod'; it has: .*load"):
        clouds_jax.lod  # noqa: B018


def test_the_numeric_core_is_there_alone():
    assert callable(clouds_jax.ops.deform_attn) and callable(clouds_jax.ops.assign)


def test_a_protocol_by_name_or_by_value_prepares_the_picture(model, picture):
    by_name = model.predict(picture, protocol="slide")
    by_value = model.predict(picture, protocol=protocols.get_protocol("slide"))
    np.testing.assert_array_equal(by_name.label, by_value.label)
