"""Ten steps of the joint phase against plain PyTorch: the compiled step as it trains, whole.

Teacher, pseudo-labels, components, points, SAM's masks, the rules, targets, losses, clipping,
AdamW: same weights, images and random numbers. The PyTorch side is open_clip's encoder, Hugging
Face's head, segment_anything's decoder, scipy and the reference criterion.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")

from clouds_jax import sharding  # noqa: E402
from clouds_jax.losses import points, segmentation  # noqa: E402
from clouds_jax.nn.clouds import HeadSize, build_model  # noqa: E402
from clouds_jax.nn.encoders.registry import get_encoder  # noqa: E402
from clouds_jax.nn.sam.registry import get_sam  # noqa: E402
from clouds_jax.selftrain import refine_device  # noqa: E402
from clouds_jax.selftrain.joint import SelfTraining, joint  # noqa: E402
from clouds_jax.selftrain.labels import FromSam  # noqa: E402
from clouds_jax.selftrain.refine_rules import PRESETS, RefineRules  # noqa: E402
from clouds_jax.selftrain.teacher import Average  # noqa: E402
from clouds_jax.training import optim  # noqa: E402
from clouds_jax.training.state import make_state  # noqa: E402
from clouds_jax.training.step import make_step  # noqa: E402
from clouds_jax.typing import Batch, Generated  # noqa: E402
from porting import tables  # noqa: E402
from porting.conversion import targets  # noqa: E402
from porting.reference import criterion  # noqa: E402
from porting.reference import joint as reference  # noqa: E402
from porting.reference import sam as reference_sam  # noqa: E402
from porting.reference.families import FAMILIES  # noqa: E402
from porting.reference.mask2former import Head  # noqa: E402
from porting.reference.randomise import randomise  # noqa: E402
from porting.tables.apply import apply_rules  # noqa: E402

pytestmark = pytest.mark.parity

LOSS = 1e-4  # relative
WEIGHT = 1e-3  # of a tensor's norm
MOVED = 2e-2  # of how far a tensor went
# Zero gradients but for rounding, which Adam blows up to steps of full length: the softmax does not
# see the bias of the keys.
UNSEEN = "key.bias"

ENCODER, SAM, CLASSES, STEPS = "convnext_debug", "sam_debug", 5, 10
SIZE = (64, 96)
LR, DECAY, CLIP, EMA = 2e-4, 0.05, 0.5, 0.9
HEAD = HeadSize(
    num_queries=8, dim=64, num_heads=4, pixel_layers=1, pixel_ffn=24, decoder_layers=3,
    decoder_ffn=24,
)  # fmt: skip
SLOTS = 24  # for components of an image; there are fewer
NUMBERS = dict(min_area=30, num_points=3)
COUNTS = points.Counts.of(80, oversample=3.0, importance=0.75)


class Sides:
    """Both sides with the same random weights."""

    def __init__(self):
        make = FAMILIES["open_clip_convnext"].encoder
        assert make
        torch.manual_seed(0)
        self.reference = make(ENCODER)
        randomise(self.reference.module, 0)
        self.spec = get_encoder(ENCODER)
        self.head = Head(self.spec.widths, HEAD, CLASSES)
        self.make_opinionated(randomise(self.head, 1))
        self.sam = reference_sam.random_sam(SAM, 2)
        decoder = {
            name: tensor for name, tensor in self.sam.state_dict().items()
            if not name.startswith(("image_encoder", "pixel_"))
        }  # fmt: skip
        want = targets.sam_shapes(SAM)
        self.weights = {
            **self.move("open_clip_convnext", "encoder", self.reference.module.state_dict(),
                        targets.encoder_shapes(ENCODER)),
            **self.move_head(self.head.state_dict()),
            **self.move("sam_decoder", "sam", decoder,
                        {k: v for k, v in want.items() if k != "image_encoder"}),
        }  # fmt: skip

    @torch.no_grad()
    def make_opinionated(self, head):
        """Queries that say different classes of different regions, as a trained teacher's do:
        pseudo-labels with several classes and components."""
        for name, value in head.named_parameters():
            if "cross_attn.out_proj" in name:
                value *= 0.1
            if "mask_projection" in name or "mask_embedder.2.0.weight" in name:
                value *= 2
        features = self.encode(np.concatenate([arrays(step)[3] for step in range(4)]))
        head.class_predictor.weight *= 3
        head.class_predictor.bias *= 0
        head.class_predictor.bias -= head(features)[0][-1].mean((0, 1))

    def move(self, table, part, state, want):
        arrays = {name: value.detach().numpy() for name, value in state.items()
                  if not name.startswith(("transformer.", "token_", "ln_final", "positional_",
                                          "text_", "logit_"))}  # fmt: skip
        return apply_rules(arrays, tables.get_table(table).rules, {part: want})

    def move_head(self, state):
        arrays = {name: value.detach().numpy() for name, value in state.items()}
        want = {"head": targets.head_shapes(self.spec.widths, HEAD, CLASSES)}
        return apply_rules(arrays, tables.get_table("mask2former_hf").rules, want)

    def encode(self, images):
        mean, std = (torch.tensor(x) for x in (self.spec.mean, self.spec.std))
        x = ((torch.from_numpy(images).float() - mean) / std).permute(0, 3, 1, 2)
        taps = {step: name for name, step in self.reference.taps.items()}
        found = {}
        for name, step in self.reference.steps:
            x = step(x)
            if name in taps:
                found[taps[name]] = x
        return [found[f"res{level}"] for level in range(2, 6)]


@pytest.fixture(scope="module")
def sides():
    return Sides()


def arrays(step):
    """Images with regions, so that labels have components, and noise."""
    rng = np.random.default_rng(step)

    def pictures(n):
        coarse = rng.integers(0, 256, (n, SIZE[0] // 32, SIZE[1] // 32, 3))
        fine = rng.uniform(0.8, 1, (n, *SIZE, 1))
        return (coarse.repeat(32, 1).repeat(32, 2) * fine).astype(np.uint8)

    image, clean = pictures(2), pictures(2)
    new = (clean * rng.uniform(0.7, 1, (2, 1, 1, 3))).astype(np.uint8)
    label = rng.integers(0, CLASSES + 1, (2, 4, 6)).repeat(16, 1).repeat(16, 2)
    label[label == CLASSES] = 255
    size = get_sam(SAM).decoder
    embedding = rng.normal(size=(2, size.grid, size.grid, size.dim)).astype(np.float32)
    return image, label.astype(np.uint8), new, clean, embedding


def ours(sides, preset):
    """State and compiled step."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    schedule = dict(lr=LR, steps=STEPS)
    tx = optim.make_optimizer(**schedule, weight_decay=DECAY, clip_norm=CLIP)

    def build(rngs):
        return build_model(ENCODER, HEAD, CLASSES, sam=get_sam(SAM).decoder, rngs=rngs)

    graphdef, state, shardings = make_state(
        build, tx, seed=0, mesh=mesh, rules=((".*", "replicate"),), weights=sides.weights,
        teacher=True,
    )  # fmt: skip
    source = FromSam(rules_of(preset), components=SLOTS, chunk=4, sam=SAM)
    settings = SelfTraining(source, Average(EMA, 1))
    loss = functools.partial(
        segmentation.set_loss, num_points=COUNTS.uncertain + COUNTS.random, oversample=3.0,
        importance=0.75,
    )  # fmt: skip
    step = make_step(
        graphdef, loss, tx, prepare=joint(settings, CLASSES), mesh=mesh, shardings=shardings,
        schedule=optim.make_schedule(**schedule), donate=False,
    )  # fmt: skip
    return state, step


def rules_of(preset):
    rules = PRESETS[preset]
    return RefineRules(
        **NUMBERS, overlap=rules.overlap, emptied=rules.emptied, unlabelled=rules.unlabelled
    )


def drawn(keys, wanted):
    """The points that our step draws, for the reference's targets."""
    out = []
    for output in range(HEAD.decoder_layers + 1):
        match = np.array(points.match_points(keys, output, COUNTS.uncertain + COUNTS.random))
        draw = points.draw(keys, output, CLASSES, COUNTS)
        many = [torch.from_numpy(np.array(x)) for x in (match, draw.candidates, draw.random)]
        out.append([
            criterion.Points(many[0][i], many[1][i][t.classes], many[2][i][t.classes])
            for i, t in enumerate(wanted)
        ])  # fmt: skip
    return out


def by_path(state):
    return {
        ".".join(map(str, path[1:])): np.asarray(v[...]) for path, v in nnx.to_flat_state(state)
    }


def flat(tree, prefix=""):
    out = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        out |= flat(value, name) if isinstance(value, dict) else {name: np.asarray(value)}
    return out


@pytest.mark.parametrize("preset", ["release", pytest.param("fixed", marks=pytest.mark.slow)])
def test_ten_joint_steps_follow_the_reference(sides, preset):
    state, step = ours(sides, preset)
    head = Head(sides.spec.widths, HEAD, CLASSES)
    head.load_state_dict(sides.head.state_dict())
    run = reference.Joint(
        sides.encode, head, sides.sam,
        reference.Settings(
            CLASSES, preset, NUMBERS["min_area"], decay=EMA, every=1, uncertain=COUNTS.uncertain,
            lr=LR, weight_decay=DECAY, clip=CLIP,
        ),
    )  # fmt: skip
    first = by_path(state.params)
    prompted = 0
    for number in range(STEPS):
        image, label, new, clean, embedding = arrays(number)
        key = jax.random.fold_in(state.key, state.step)
        keys, new_keys, draw_keys = (
            jax.random.split(k, 2)
            for k in (key, jax.random.fold_in(key, 1), jax.random.fold_in(key, 2))
        )
        bits = refine_device.draws(draw_keys, SIZE, rules_of(preset), SLOTS)
        theirs = run.step(
            image, label, new, clean,
            [torch.from_numpy(e.transpose(2, 0, 1)[None].copy()) for e in embedding],
            np.array(bits), functools.partial(drawn, jnp.concatenate([keys, new_keys])),
        )  # fmt: skip
        generated = Generated(image=new, clean=clean, embedding=embedding)
        state, found = step(state, Batch(image, label, generated))
        for name, value in theirs.items():
            np.testing.assert_allclose(found[name], value, rtol=LOSS, err_msg=f"{number} {name}")
        raw, refined = run.labels
        prompted += int(SLOTS / 2 > found["pseudo/components"] > 1)
        np.testing.assert_allclose(
            found["pseudo/dropped"], (refined == 255).mean(), atol=1e-4, err_msg=str(number)
        )
        same = (refined == raw) & (refined != 255)
        np.testing.assert_allclose(found["pseudo/confirmed"], same.mean(), atol=1e-4)
    assert prompted == STEPS  # SAM was asked in every step

    for what, module in (("student", head), ("teacher", run.teacher)):
        expected = flat(sides.move_head(module.state_dict())["head"])
        got = by_path(state.params if what == "student" else state.teacher)
        assert got.keys() == expected.keys()
        for path, value in expected.items():
            if path.endswith(UNSEEN):
                continue
            distance = np.linalg.norm(got[path] - value)
            assert distance < WEIGHT * np.linalg.norm(value), (what, path)
            assert distance < MOVED * np.linalg.norm(value - first[path]), (what, path)
