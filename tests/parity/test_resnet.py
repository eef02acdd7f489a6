"""The ResNets against five libraries: small, random weights, through the rule tables and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.size import HeadSize
from porting.conversion.targets import encoder_shapes, infer_target
from porting.parity import report, run
from porting.parity.jax_steps import jitted
from porting.parity.model_pair import with_weights
from porting.parity.tap import compare
from porting.parity.tolerances import get_tolerance
from porting.reference import detectron2, mask2former, resnets
from porting.reference.families import FAMILIES, Family
from porting.reference.randomise import randomise
from porting.tables import get_table
from porting.tables.apply import apply_rules, invert_rules, plan

pytestmark = pytest.mark.parity
FEATURES = ["res2", "res3", "res4", "res5"]
BLOCKS = 1 + sum((1, 2, 3, 1))  # stem and blocks of the debug sizes
TOLERANCE = get_tolerance("float32", "cpu")


def to_ours(x):
    """NCHW to NHWC."""
    return np.moveaxis(x.numpy(), 1, -1)


def numpy_state(module, prefix=""):
    return {prefix + name: tensor.numpy() for name, tensor in module.state_dict().items()}


def check(family, seeds):
    pair, cases, tolerance = run.run(family, size="tiny", seeds=seeds)
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    for case in cases:
        assert sum(tap.view == "block" for tap in case.taps) == BLOCKS
    return pair, [tap.name for tap in cases[0].taps if tap.view == "chain"]


def test_clips_blocks_features_and_embedding_equal_open_clip():
    pair, names = check("open_clip_resnet", seeds=2)
    assert names == [*FEATURES, "embedding"]
    assert all("running" not in name for name in pair.conversion.plan.dropped)


@pytest.mark.parametrize("family", ["torchvision_resnet", "resnet_hf", "resnet_d2", "resnet_msra"])
def test_blocks_and_features_equal_the_reference(family):
    assert check(family, seeds=1)[1] == FEATURES


def test_timms_resnet_is_of_torchvisions_family(monkeypatch):
    timm = Family(resnets.timm_resnet, tiny="resnet_debug")
    monkeypatch.setitem(FAMILIES, "torchvision_resnet", timm)
    assert check("torchvision_resnet", seeds=1)[1] == FEATURES


@pytest.fixture(scope="module")
def clip():
    """open_clip's small CLIP and our encoder, with positions large enough to matter."""
    model = resnets.open_clip_resnet("clip_resnet_debug").module
    randomise(model, 3)
    nn.init.normal_(model.visual.attnpool.positional_embedding)
    state = numpy_state(model.visual, "visual.")
    tree = apply_rules(
        state,
        get_table("open_clip_resnet").rules,
        {"encoder": encoder_shapes("clip_resnet_debug")},
    )
    spec = get_encoder("clip_resnet_debug")
    return model.visual, with_weights(spec.build, tree["encoder"])


@pytest.mark.parametrize("size", [(7, 7), (5, 9), (16, 8)])
def test_the_attention_pool_equals_open_clips_on_its_own_size_and_resized(clip, size):
    visual, ours = clip
    x = torch.randn(2, 256, *size, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        resized = resnets.pool_image(visual.attnpool, x)
        if size == (7, 7):  # as it is, without our resizing
            torch.testing.assert_close(resized, visual.attnpool(x), rtol=0, atol=0)
    found = jitted(ours, lambda m, x: m.embed({"res5": x}))(to_ours(x))
    tap = compare("pool", "block", found, resized.numpy(), TOLERANCE)
    assert tap.good, tap


@pytest.mark.parametrize("size", [(7, 7), (5, 9)])
def test_embeddings_of_masks_equal_fc_clips_and_are_finite_where_a_mask_is_empty(clip, size):
    visual, ours = clip
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 256, *size, generator=generator)
    masks = torch.rand(2, 6, *size, generator=generator) > 0.7
    masks[0, 2] = False
    masks[1, 4] = True
    masks[1, 5] = False
    masks[1, 5, 3, 1] = True
    with torch.no_grad():
        theirs = resnets.pool_masks(visual.attnpool, x, masks).numpy()
    given = jnp.asarray(np.moveaxis(masks.numpy(), 1, -1))
    found = np.asarray(jitted(ours, lambda m, x, masks: m.pool_masks(x, masks))(to_ours(x), given))
    empty = np.zeros((2, 6), bool)
    empty[0, 2] = True
    assert np.isfinite(found).all()
    tap = compare("pool_masks", "block", found[~empty], theirs[~empty], TOLERANCE)
    assert tap.good, tap


def random_images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(6))


def features(reference, images):
    """The reference's features of images, step by step."""
    found = {}
    with torch.no_grad():
        x = images
        for name, step in reference.steps:
            x = step(x)
            found[name] = x
    return {feature: found[name] for feature, name in reference.taps.items()}


def test_our_detectron2_equals_torchvision_under_detectron2s_names():
    torchvision = resnets.torchvision_resnet("resnet_debug")
    randomise(torchvision.module, 7)
    copied = detectron2.resnet_d2("resnet_debug")
    state = {
        detectron2.d2_name(name): tensor
        for name, tensor in torchvision.module.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    copied.module.load_state_dict(state, strict=True)
    images = random_images(2, 3, 75, 101)
    theirs, ours = features(torchvision, images), features(copied, images)
    for name in FEATURES:
        assert torch.equal(ours[name], theirs[name])


def test_our_detectron2_with_strides_in_the_first_convolution_equals_hugging_faces():
    hugging_face = resnets.resnet_hf("resnet_msra_debug")  # downsample_in_bottleneck
    randomise(hugging_face.module, 8)
    state = numpy_state(hugging_face.module)
    tree = apply_rules(
        state, get_table("resnet_hf").rules, {"encoder": encoder_shapes("resnet_msra_debug")}
    )
    msra = detectron2.resnet_msra("resnet_msra_debug")
    names = numpy_state(msra.module)
    back = invert_rules(tree, get_table("resnet_msra").rules, names)
    msra.module.load_state_dict({k: torch.from_numpy(v) for k, v in back.items()}, strict=True)
    # MSRA's kernel is the flipped one, and its stem flips the images
    kernel, flipped = state["resnet.embedder.embedder.convolution.weight"], back["conv1_w"]
    np.testing.assert_array_equal(kernel[:, ::-1], flipped)
    images = random_images(1, 3, 93, 67)
    theirs, ours = features(hugging_face, images), features(msra, images)
    for name in FEATURES:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


def test_names_in_caffe2s_manner_are_those_of_the_public_files():
    # as Detectron2 prints them when it reads MSRA's R-50.pkl
    assert detectron2.caffe2_name("stem.conv1.weight") == "conv1_w"
    assert detectron2.caffe2_name("stem.conv1.norm.bias") == "res_conv1_bn_beta"
    assert detectron2.caffe2_name("stem.conv1.norm.weight") == "res_conv1_bn_gamma"
    assert detectron2.caffe2_name("res4.5.conv3.norm.weight") == "res4_5_branch2c_bn_gamma"
    assert (
        detectron2.caffe2_name("res5.0.shortcut.norm.running_var")
        == "res5_0_branch1_bn_running_var"
    )
    names = set(numpy_state(detectron2.resnet_msra("resnet_msra_debug").module))
    assert {"conv1_w", "res2_0_branch2a_w", "res4_2_branch2b_bn_running_mean"} <= names


def without_classifier(model):
    model.fc = nn.Identity()
    return model


def hf_model(name):
    import transformers

    return getattr(transformers, name)(resnets.hf_config("resnet_debug"))


# family -> a module of the original class that holds all that the table uses, and its prefix
ORIGINALS = {
    "open_clip_resnet": (
        "clip_resnet_debug",
        lambda: resnets.open_clip_resnet("clip_resnet_debug").module.visual,
        "visual.",
    ),
    "torchvision_resnet": (
        "resnet_debug",
        lambda: without_classifier(resnets.torchvision_resnet("resnet_debug").module),
        "",
    ),
    "torchvision_resnet (timm)": (
        "resnet_debug",
        lambda: without_classifier(resnets.timm_resnet("resnet_debug").module),
        "",
    ),
    "resnet_hf": ("resnet_debug", lambda: hf_model("ResNetModel"), ""),
    "resnet_hf (backbone)": ("resnet_debug", lambda: hf_model("ResNetBackbone"), ""),
    "resnet_d2": ("resnet_debug", lambda: detectron2.resnet_d2("resnet_debug").module, ""),
    "resnet_msra": (
        "resnet_msra_debug",
        lambda: detectron2.resnet_msra("resnet_msra_debug").module,
        "",
    ),
}


@pytest.mark.parametrize("case", ORIGINALS)
def test_the_way_back_fills_the_original_class_strictly_and_bit_for_bit(case):
    encoder, make, prefix = ORIGINALS[case]
    table = get_table(case.partition(" ")[0])
    state = numpy_state(randomise(make(), 9), prefix)
    target = infer_target(state, table, encoder=encoder)
    tree = apply_rules(state, table.rules, target.shapes)
    back = invert_rules(tree, table.rules, state)
    fresh = make()
    fresh.load_state_dict(
        {name.removeprefix(prefix): torch.from_numpy(array) for name, array in back.items()},
        strict=True,
    )
    for name, tensor in numpy_state(fresh, prefix).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(tensor, state[name])


def test_an_archive_of_openai_comes_back_in_float16():
    """Kernels of the archives are float16, norms float32; three numbers lie beside the weights."""
    state = numpy_state(resnets.open_clip_resnet("clip_resnet_debug").module)
    state = {
        name: array.astype(np.float16) if array.ndim > 1 else array for name, array in state.items()
    }
    numbers = dict(input_resolution=224, context_length=7, vocab_size=50)
    state |= {name: np.asarray(value) for name, value in numbers.items()}
    table = get_table("open_clip_resnet")
    target = infer_target(state, table)
    assert target.encoder == "clip_resnet_debug"
    planned = plan(state, table.rules, target.shapes)
    assert not planned.misfits and numbers.keys() <= planned.dropped.keys()
    tree = apply_rules(state, table.rules, target.shapes)
    assert tree["encoder"]["stem"]["conv1"]["conv"]["kernel"].dtype == np.float32
    for name, array in invert_rules(tree, table.rules, state).items():
        assert array.dtype == state[name].dtype
        np.testing.assert_array_equal(array, state[name])


def full(make, prefix=""):
    """Names, shapes and dtypes of a module that is never filled."""
    with torch.device("meta"):
        state = make().state_dict()
    return {
        prefix + name: jax.ShapeDtypeStruct(
            tuple(t.shape), np.dtype(str(t.dtype).removeprefix("torch."))
        )
        for name, t in state.items()
    }


def fits(family, source):
    table = get_table(family)
    target = infer_target(source, table)
    found = plan(source, table.rules, target.shapes)
    assert not found.misfits
    return target, found


def head(widths):
    with torch.device("meta"):
        module = mask2former.Head(widths, HeadSize(), 19)
    return mask2former.to_original(module.state_dict())


# tensors of a CLOUDS checkpoint, spec 8.2
@pytest.mark.parametrize("encoder, count", [("clip_resnet50", 783), ("clip_resnet101", 1089)])
def test_clip_and_clouds_of_full_size_fit_and_are_told_by_their_shapes(encoder, count):
    clip = full(lambda: resnets.open_clip_resnet(encoder, text=True).module)
    assert fits("open_clip_resnet", clip)[0].encoder == encoder
    source = {f"backbone.clip_model.{name}": leaf for name, leaf in clip.items()}
    source |= {
        name: jax.ShapeDtypeStruct(tuple(t.shape), np.float32)
        for name, t in head(get_encoder(encoder).widths).items()
    }
    source["criterion.empty_weight"] = jax.ShapeDtypeStruct((20,), np.float32)
    source["void_embedding.weight"] = jax.ShapeDtypeStruct((1, 1024), np.float32)
    assert len(source) == count
    target, _ = fits("clouds", source)
    assert target.encoder == encoder and target.head == HeadSize()


@pytest.mark.parametrize("encoder", ["resnet50", "resnet101"])
def test_a_mask2former_of_the_zoo_on_a_resnet_fits_whole(encoder):
    trunk = full(lambda: resnets.torchvision_resnet(encoder).module)
    source = {
        f"backbone.{detectron2.d2_name(name)}": leaf
        for name, leaf in trunk.items()
        if not name.startswith("fc.")
    }
    source |= {
        name: jax.ShapeDtypeStruct(tuple(t.shape), np.float32)
        for name, t in head(get_encoder(encoder).widths).items()
    }
    source["criterion.empty_weight"] = jax.ShapeDtypeStruct((20,), np.float32)
    assert encoder != "resnet50" or len(source) == 611  # spec 8.4
    target, found = fits("mask2former_d2", source)
    assert target.encoder == encoder and target.head == HeadSize()
    counters = {name for name in found.dropped if name.endswith("num_batches_tracked")}
    assert found.dropped.keys() - counters == {"criterion.empty_weight"}


@pytest.mark.parametrize("encoder", ["resnet50_msra", "resnet101_msra"])
def test_msras_files_fit_and_say_what_is_left_out(encoder):
    source = full(lambda: detectron2.resnet_msra(encoder).module)
    source["conv1_b"] = jax.ShapeDtypeStruct((64,), np.float32)
    source["fc1000_w"] = jax.ShapeDtypeStruct((1000, 2048), np.float32)
    source["fc1000_b"] = jax.ShapeDtypeStruct((1000,), np.float32)
    target, found = fits("resnet_msra", source)
    assert target.encoder == encoder
    assert list(found.dropped) == ["conv1_b", "fc1000_w", "fc1000_b"]
    assert found.used["conv1_w"][0].layout.name == "conv2d_bgr"
