"""Rule tables on the names and shapes of the real models at full size; no numbers are made."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from clouds_jax.nn import clip_text
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.size import HeadSize
from porting.conversion.targets import infer_target
from porting.reference import encoders, mask2former, resnets
from porting.tables import get_table
from porting.tables.apply import plan

pytestmark = pytest.mark.parity
LARGE = "convnext_large_d_320"


def shapes(state, prefix=""):
    """A state dict as names, shapes and dtypes."""
    return {
        prefix + name: jax.ShapeDtypeStruct(
            tuple(t.shape), np.dtype(str(t.dtype).removeprefix("torch."))
        )
        for name, t in state.items()
    }


def meta(make):
    """The names and shapes of a module that is never filled."""
    with torch.device("meta"):
        return shapes(make().state_dict())


def planned(family, source, **kwargs):
    table = get_table(family)
    target = infer_target(source, table, **kwargs)
    found = plan(source, table.rules, target.shapes)
    assert not found.misfits
    return target, found


@pytest.fixture(scope="module")
def clip():
    return meta(lambda: encoders.open_clip_convnext(LARGE, text=True).module)


@pytest.fixture(scope="module")
def head():
    with torch.device("meta"):
        module = mask2former.Head(get_encoder(LARGE).widths, HeadSize(), 19)
    return module.state_dict()


def test_open_clips_large_model_fits_and_is_told_by_its_shapes(clip):
    assert len(clip) == 543  # spec 8.1
    target, found = planned("open_clip_convnext", clip)
    assert target.encoder == LARGE and target.text == clip_text.SIZES[LARGE]
    assert len(found.used) == 543 and not found.dropped
    target, found = planned("open_clip_text", clip)
    assert target.encoder is None and target.text == clip_text.SIZES[LARGE]
    assert len(found.used) == 543 - 345 and len(found.dropped) == 345


@pytest.mark.parametrize("encoder", ["clip_resnet50", "clip_resnet101"])
def test_a_text_tower_of_openais_is_told_by_the_encoder_beside_it(encoder):
    source = meta(lambda: resnets.open_clip_resnet(encoder, text=True).module)
    for family in ("open_clip_resnet", "open_clip_text"):
        assert planned(family, source)[0].text == clip_text.SIZES[encoder]
    source["input_resolution"] = jax.ShapeDtypeStruct((), np.int32)  # as in OpenAI's archives
    assert "input_resolution" in planned("open_clip_text", source)[1].dropped


@pytest.mark.parametrize("encoder", ["convnext_base", "convnext_xxlarge"])
def test_open_clips_other_models_fit(encoder):
    source = meta(lambda: encoders.open_clip_convnext(encoder).module)
    assert planned("open_clip_convnext", source)[0].encoder == encoder


@pytest.mark.parametrize("encoder", [LARGE, "convnext_base"])
def test_timms_clip_models_fit(encoder):
    source = meta(lambda: encoders.timm_convnext(encoder, clip=True).module)
    target, found = planned("timm_clip_convnext", source)
    assert target.encoder == encoder
    assert list(found.dropped) == ["head.fc.bias"]


def test_a_clouds_checkpoint_of_full_size_fits(clip, head):
    original = shapes(mask2former.to_original(head))
    parts = [name.split(".")[1] for name in original]
    assert parts.count("pixel_decoder") == 117 and parts.count("predictor") == 175  # spec 8.2
    source = {f"backbone.clip_model.{name}": leaf for name, leaf in clip.items()} | original
    source["criterion.empty_weight"] = jax.ShapeDtypeStruct((20,), np.float32)
    source["void_embedding.weight"] = jax.ShapeDtypeStruct((1, 768), np.float32)
    assert len(source) == 837
    target, found = planned("clouds", source)
    assert target.encoder == LARGE and target.head == HeadSize() and target.classes == 19
    assert len(found.used) == 543 + 292
    assert target.text == clip_text.SIZES[LARGE]


def test_a_clouds_checkpoint_without_its_clip_gives_a_head(head):
    target, _ = planned("clouds", shapes(mask2former.to_original(head)))
    assert target.encoder is None and set(target.shapes) == {"head"}


def original_head(classifier, queries=100):
    size = HeadSize(classifier=classifier, num_queries=queries)
    with torch.device("meta"):
        module = mask2former.Head(
            get_encoder(LARGE).widths, size, 19, torch.ones(19, 768), [1] * 19
        )
    return shapes(mask2former.to_original(module.state_dict()))


def test_fc_clips_checkpoint_fits_and_takes_its_clip_from_a_second_file(clip):
    source = original_head("text", queries=250)
    source["criterion.empty_weight"] = jax.ShapeDtypeStruct((134,), np.float32)
    assert len(source) == 303  # spec 1.9
    target, found = planned("fcclip", source)
    assert target.head == HeadSize(classifier="text", num_queries=250)
    assert target.encoder is None and target.classes is None and target.embedding == 768
    assert list(found.dropped) == ["criterion.empty_weight"]
    prefix = get_table("fcclip").clip_prefix
    target, _ = planned("fcclip", source | {prefix + name: leaf for name, leaf in clip.items()})
    assert set(target.shapes) == {"encoder", "text", "head"} and target.encoder == LARGE


@pytest.mark.parametrize("classifier", ["text", "pooled"])
def test_clouds_checkpoints_with_the_other_class_heads_fit(classifier):
    source = original_head(classifier)
    source["void_embedding.weight"] = jax.ShapeDtypeStruct((1, 768), np.float32)
    target, found = planned(f"clouds_{classifier}", source)
    assert target.head.classifier == classifier
    # the pooled one never reads the void embedding
    assert list(found.dropped) == ([] if classifier == "text" else ["void_embedding.weight"])
    assert target.classes == (None if classifier == "text" else 19)


def test_a_text_classifier_head_is_refused_by_name(head):
    source = shapes(mask2former.to_original(head))
    del source["sem_seg_head.predictor.class_embed.weight"]
    del source["sem_seg_head.predictor.class_embed.bias"]
    layer = "sem_seg_head.predictor.class_embed.layers.0.weight"
    source[layer] = jax.ShapeDtypeStruct((256, 256), np.float32)
    table = get_table("clouds")
    misfits = plan(source, table.rules, infer_target(source, table).shapes).misfits
    assert f"{layer} (256, 256): matches no rule" in misfits


@pytest.mark.parametrize("query", ["query_feat", "static_query"])
def test_a_detectron2_head_on_a_swin_fits_under_both_names_of_its_queries(query):
    widths = (96, 192, 384, 768)
    with torch.device("meta"):
        module = mask2former.Head(widths, HeadSize(), 19)
    source = shapes(mask2former.to_original(module.state_dict()))
    queries = source.pop("sem_seg_head.predictor.query_feat.weight")
    source[f"sem_seg_head.predictor.{query}.weight"] = queries
    trunk = ("patch_embed.proj.weight", "layers.0.blocks.1.attn.qkv.weight", "norm3.bias")
    for name in trunk:
        source[f"backbone.{name}"] = jax.ShapeDtypeStruct((1,), np.float32)
    target, found = planned("mask2former_d2", source)
    assert target.widths == widths and target.encoder is None
    assert list(found.dropped) == [f"backbone.{name}" for name in trunk]


def test_the_whole_hugging_face_model_fits():
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    config = Mask2FormerConfig(num_labels=19)
    with torch.device("meta"):
        model = Mask2FormerForUniversalSegmentation(config)
    target, found = planned("mask2former_hf", shapes(model.state_dict()))
    assert target.head == HeadSize() and target.classes == 19
    assert target.widths == (96, 192, 384, 768)  # Swin-T, the default trunk
    kept = {name for name in found.dropped if not name.startswith("model.pixel_level_module.enc")}
    assert kept == {"criterion.empty_weight"}


def test_names_of_the_original_head_come_back():
    head = mask2former.Head((8, 16, 24, 32), HeadSize(num_queries=3, dim=32, pixel_layers=1), 4)
    state = head.state_dict()
    back = mask2former.from_original(head, mask2former.to_original(state))
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)
