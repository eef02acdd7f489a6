"""Text and pooled class heads and the ensemble against PyTorch, with empty masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("torch")

import torch
import torch.nn.functional as F

from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former import class_heads
from clouds_jax.nn.mask2former.ensemble import Ensemble, EnsembleSize
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.typing import Prediction
from porting.conversion.targets import infer_target
from porting.parity import report
from porting.parity import run as parity
from porting.parity.model_pair import with_weights
from porting.reference import encoders, resnets
from porting.reference.class_heads import PooledPredictor, TextPredictor
from porting.reference.ensemble import Settings, ensemble, pooled_embedding
from porting.reference.randomise import randomise
from porting.tables import get_table, mask2former_d2
from porting.tables.apply import apply_rules

pytestmark = pytest.mark.parity
ATOL = 1e-4  # of the standard deviation
COUNTS = (2, 1, 3, 1)
CLASS_OF_ROW = (0, 0, 1, 2, 2, 2, 3)
DIM, WIDTH = 32, 12


def to_torch(x):
    """NHWC to NCHW."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def unit_rows(width=WIDTH):
    rows = torch.randn((len(CLASS_OF_ROW), width), generator=torch.Generator().manual_seed(1))
    return F.normalize(rows, dim=-1)


def inputs(seed=0):
    """Queries, mask features, mask logits of one output; every image has an empty mask."""
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(2, 6, DIM)).astype(np.float32)
    features = rng.normal(size=(2, 9, 14, DIM)).astype(np.float32)
    masks = rng.normal(size=(2, 9, 14, 6)).astype(np.float32)
    masks[0, ..., 2] = -1
    masks[1, ..., :2] = -0.5
    masks[1, ..., 5] = 1  # and one that is everywhere
    return queries, features, masks


def converted(module, classifier):
    """Our class head with the weights of a reference, through the rules of the checkpoints."""
    state = {}
    for name, tensor in module.state_dict().items():
        void = name.startswith("void_embedding")
        state[name if void else f"sem_seg_head.predictor.{name}"] = tensor.numpy()
    rules = dict(text=mask2former_d2.TEXT_HEAD, pooled=mask2former_d2.POOLED_HEAD)[classifier]
    rows = class_heads.TextRows(CLASS_OF_ROW, WIDTH)
    size = HeadSize(dim=DIM, classifier=classifier)

    def build(rngs):
        return class_heads.make_class_head(size, 4, rows, rngs=rngs)

    want = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param))
    tree = apply_rules(state, rules, {"head": {"transformer_decoder": {"class_embed": want}}})[
        "head"
    ]["transformer_decoder"]["class_embed"]
    if classifier == "text":
        tree["matrix"] = module.get_buffer("matrix").numpy()
    return with_weights(build, tree)


@pytest.mark.parametrize("classifier", ["text", "pooled"])
@torch.no_grad()
def test_the_class_heads_equal_the_reference(classifier):
    module = (
        TextPredictor(DIM, unit_rows(), COUNTS) if classifier == "text" else PooledPredictor(DIM, 4)
    )
    randomise(module, 0)
    if classifier == "text":
        module.logit_scale.copy_(torch.tensor(2.3))
    queries, features, masks = inputs()
    theirs = module(torch.from_numpy(queries), to_torch(features), to_torch(masks)).numpy()
    head = converted(module, classifier)
    arrays = map(jnp.asarray, (queries[None], features, masks[None]))
    ours = head(*arrays)[0]
    assert theirs.shape == (2, 6, 5)
    assert np.abs(ours - theirs).max() < ATOL * theirs.std()


@pytest.mark.parametrize(
    "family", ["fcclip", pytest.param("clouds_pooled", marks=pytest.mark.slow)]
)
def test_whole_heads_of_the_families_equal_the_reference(family):
    pair, cases, tolerance = parity.run(family, size="tiny", seeds=1)
    assert report.good(cases), report.to_markdown(report.to_json(pair, cases, tolerance), cases)
    assert (
        pair.conversion.target.head.classifier
        == dict(fcclip="text", clouds_pooled="pooled")[family]
    )


def clip_pair(encoder):
    """Our CLIP encoder, and the reference's embedding of (res5, mask logits)."""
    resnet = encoder.startswith("clip_resnet")
    family = "open_clip_resnet" if resnet else "open_clip_convnext"
    made = (resnets.open_clip_resnet if resnet else encoders.open_clip_convnext)(encoder)
    randomise(made.module, 3)
    state = {name: tensor.numpy() for name, tensor in made.module.state_dict().items()}
    table = get_table(family)
    target = infer_target(state, table, encoder=encoder)
    tree = apply_rules(state, table.rules, target.shapes)
    spec = get_encoder(encoder)
    ours = with_weights(spec.build, tree["encoder"])
    if resnet:
        pool = made.module.visual.attnpool
        return ours, spec, lambda x, masks: resnets.pool_masks(pool, x, masks > 0)
    visual = made.module.visual
    return ours, spec, pooled_embedding(lambda x: visual.head(visual.trunk.head(x)))


@pytest.mark.parametrize("valid_masks", [False, True])
@pytest.mark.parametrize("encoder", ["convnext_debug", "clip_resnet_debug"])
@torch.no_grad()
def test_the_ensemble_equals_the_reference(encoder, valid_masks):
    ours, spec, embed = clip_pair(encoder)
    rng = np.random.default_rng(7)
    res5 = rng.normal(size=(2, 3, 4, spec.widths[-1])).astype(np.float32)
    masks = rng.normal(size=(2, 24, 32, 6)).astype(np.float32)
    # empty at stride 32: everywhere, and where one pixel of stride 4 is not sampled
    masks[0, ..., 1] = -1
    masks[1, ..., 4] = -1
    masks[1, 0, 0, 4] = 0.5
    classes = rng.normal(size=(2, 6, 5)).astype(np.float32)
    classes[..., 3] = -300.0  # a class that the trained side excludes: probability 0 in float32
    rows, scale = unit_rows(), torch.tensor(4.0)
    seen = (True, False, True, False)
    settings = Settings(seen, alpha=0.4, beta=0.8, valid_masks=valid_masks)
    theirs = ensemble(
        torch.from_numpy(classes), to_torch(masks), to_torch(res5), embed, rows, COUNTS, scale,
        settings,
    ).numpy()  # fmt: skip

    size = EnsembleSize(
        class_heads.TextRows(CLASS_OF_ROW, WIDTH), seen, alpha=0.4, beta=0.8,
        valid_masks=valid_masks,
    )  # fmt: skip
    module = with_weights(
        lambda rngs: Ensemble(size, rngs=rngs),
        {"matrix": rows.numpy(), "logit_scale": scale.numpy()},
    )
    prediction = Prediction(jnp.asarray(classes)[None], jnp.asarray(masks)[None])
    run = jax.jit(lambda p, x: module(p, {"res5": x}, ours))
    out = np.asarray(run(prediction, jnp.asarray(res5)).class_logits[0])
    assert np.isfinite(out).all()

    empty = np.zeros((2, 6), bool)
    empty[0, 1] = empty[1, 4] = True
    # An attention pool without anything to attend to has no agreed value: NaN in the PyTorch of
    # the original, the bias in newer ones, and ours attends everywhere.
    no_value = encoder.startswith("clip_resnet") and not valid_masks
    defined = ~empty if no_value else np.ones_like(empty)
    error = np.abs(np.exp(out) - np.exp(theirs))[defined]
    assert error.max() < ATOL
    certain = theirs[defined] > np.log(1e-5)  # below, the added 1e-8 and rounding take over
    assert np.abs(out - theirs)[defined][certain].max() < 1e-3
    kept = np.abs(np.exp(out) - np.exp(classes) / np.exp(classes).sum(-1, keepdims=True))
    assert (kept.max(-1) < ATOL)[empty].all() == valid_masks
