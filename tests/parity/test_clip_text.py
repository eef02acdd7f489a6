"""Tokenizer, text tower and class matrix against open_clip's, with the same random weights."""

import dataclasses
import functools
import random

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("torch")

import torch
import torch.nn.functional as F

from clouds_jax.data.classes import get_space
from clouds_jax.nn.clip_text import TextTower
from clouds_jax.text import class_matrix, class_names
from clouds_jax.text.tokenizer import Tokenizer
from porting import _torchvision
from porting.conversion.targets import infer_target
from porting.parity.model_pair import with_weights
from porting.reference.randomise import randomise
from porting.tables import get_table
from porting.tables.apply import apply_rules, invert_rules, plan

pytestmark = pytest.mark.parity
ATOL = 1e-5  # of unit vectors; other embeddings are compared in units of their deviation
NAMES = class_names.class_names(get_space("cityscapes19"))
SCRIPTS = (
    range(0x20, 0x7F),
    range(0, 0x250),  # with control characters
    range(0x370, 0x1400),
    range(0x2000, 0x3000),  # signs, spaces, joiners
    range(0x3000, 0xD7FF),
    range(0x1F300, 0x1FB00),  # emoji
    range(0, 0xD800),
)
CHOSEN = [
    "", "   ", "\x00\x01\x02", "\n\t\r\x0b\x85\u2028", "a" * 5_000, "road " * 500, "😀" * 90,
    "don't you'll I've it's 'S 'LL", "&amp;amp; &lt;b&gt; &eacute; &#128512; &notanentity;",
    "<start_of_text> a <end_of_text>", "<START_OF_TEXT>x", "<|startoftext|>", "schÃ¶n â€œquotedâ€",
    "👩‍👩‍👧‍👦 🇫🇷 👍🏽", "ÄÖÜ ß İstanbul ǅ ﬁ ½ Ⅷ ١٢٣", "\ud83d alone \udc00",
    "e\u0301 é \u200b\ufeff", "…—–",
    "a photo of a {}.", "3.14159 1e-5 0x1F", "#hashtag @name https://x.y/z?a=1&b=2", "_" * 80,
]  # fmt: skip


@functools.cache
def open_clip():
    _torchvision.prepare()
    import open_clip

    return open_clip


def varied(count, seed=0):
    draw = random.Random(seed)
    drawn = []
    for i in range(count):
        script = SCRIPTS[i % len(SCRIPTS)]
        letters = (chr(draw.choice(script)) for _ in range(draw.randrange(120)))
        drawn.append("".join(letters))
    return drawn


def test_a_thousand_varied_strings_have_open_clips_ids():
    sentences = [t.format(name) for names in NAMES for name in names for t in class_names.TEMPLATES]
    texts = [*CHOSEN, *sentences[::10], *varied(1_000 - len(CHOSEN) - 84)]
    assert len(texts) == 1_000
    theirs = open_clip().SimpleTokenizer()(texts).numpy()
    np.testing.assert_array_equal(Tokenizer()(texts), theirs)


@functools.cache
def reference(quick_gelu):
    """open_clip's CLIP with a text tower of a fitting width and few layers."""
    model = open_clip().CLIP(
        embed_dim=24,
        vision_cfg=dict(
            layers=(1, 1, 1, 1), width=8, image_size=32, patch_size=None, head_width=16
        ),
        text_cfg=dict(width=128, heads=2, layers=3),
        quick_gelu=quick_gelu,
    )
    randomise(model, 0)
    with torch.no_grad():
        model.logit_scale.copy_(torch.tensor(3.1))
    return model


def converted(model, quick_gelu):
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    table = get_table("open_clip_text")
    target = infer_target(state, table)
    planned = plan(state, table.rules, target.shapes)
    assert not planned.misfits
    assert all(name.startswith("visual.") for name in planned.dropped)
    assert target.text.heads == 2 and target.text.layers == 3
    assert target.text.quick_gelu  # told by the attention pool of the visual tower
    tree = apply_rules(state, table.rules, target.shapes)
    back = invert_rules(tree, table.rules, state)
    assert all(np.array_equal(back[name], state[name]) for name in planned.used)
    size = dataclasses.replace(target.text, quick_gelu=quick_gelu)
    tower = with_weights(lambda rngs: TextTower(size, rngs=rngs), tree["text"])
    graphdef, weights = nnx.split(tower)
    run = jax.jit(lambda weights, ids: nnx.merge(graphdef, weights)(ids))

    def encode(ids):
        with jax.default_matmul_precision("highest"):
            return np.asarray(run(weights, ids))

    return encode, tree["text"]


@pytest.mark.parametrize("quick_gelu", [False, True])
@torch.no_grad()
def test_the_840_embeddings_and_the_60_rows_equal_open_clips(quick_gelu):
    model = reference(quick_gelu)
    encode, tree = converted(model, quick_gelu)
    assert tree["logit_scale"] == np.float32(3.1)

    tokenizer = open_clip().SimpleTokenizer()
    sentences = [t.format(name) for names in NAMES for name in names for t in class_names.TEMPLATES]
    assert len(sentences) == 840
    ids = tokenizer(sentences)
    theirs = model.encode_text(ids)
    ours = encode(ids[:, :16].numpy().astype(np.int32))
    assert np.abs(ours - theirs.numpy()).max() < ATOL * theirs.std()
    unit = F.normalize(theirs, dim=-1)
    assert np.abs(ours / np.linalg.norm(ours, axis=-1, keepdims=True) - unit.numpy()).max() < ATOL

    rows = F.normalize(unit.reshape(60, 14, -1).mean(1), dim=-1)
    matrix, class_of_row = class_matrix.class_embeddings(encode, Tokenizer(), NAMES)
    assert matrix.shape == (60, 24) and len(class_of_row) == 60
    assert np.abs(matrix - rows.numpy()).max() < ATOL


@torch.no_grad()
def test_texts_of_any_length_equal_open_clips():
    model = reference(False)
    encode, _ = converted(model, False)
    ids = open_clip().SimpleTokenizer()(["", "road " * 200, "x", *varied(5)])
    theirs = model.encode_text(ids)
    error = np.abs(encode(ids.numpy().astype(np.int32)) - theirs.numpy()).max()
    assert error < ATOL * theirs.std()
