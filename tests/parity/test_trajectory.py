"""Gradients of every weight of the head, and 20 steps of training, against PyTorch.

The PyTorch side is Hugging Face's pixel decoder and transformer module with random weights, the
reference criterion and torch.optim.AdamW. Weights and gradients come over by the rule table.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from porting import _torchvision  # noqa: E402

_torchvision.prepare()  # transformers imports it

from transformers.models.mask2former import modeling_mask2former as hf  # noqa: E402

from clouds_jax.losses import points, segmentation  # noqa: E402
from clouds_jax.nn.mask2former.head import Mask2FormerHead  # noqa: E402
from clouds_jax.nn.mask2former.size import HeadSize  # noqa: E402
from clouds_jax.ops import masks  # noqa: E402
from clouds_jax.training import optim  # noqa: E402
from clouds_jax.typing import Targets  # noqa: E402
from porting import tables  # noqa: E402
from porting.reference import criterion  # noqa: E402
from porting.tables.apply import apply_rules  # noqa: E402

pytestmark = pytest.mark.parity

LOSS = 1e-3  # relative
GRADIENT = 1e-3  # of a tensor's norm
WEIGHT = 1e-3  # of a tensor's norm
# The softmax does not see the bias of attention keys: its gradient is zero but for rounding, which
# Adam then blows up to steps of full length.
UNSEEN = "key.bias"

CLASSES, STEPS, LR, DECAY, CLIP = 5, 20, 1e-4, 0.05, 0.01
SIZE = HeadSize(
    num_queries=12,
    dim=64,
    num_heads=4,
    pixel_layers=2,
    pixel_ffn=48,
    decoder_layers=3,
    decoder_ffn=56,
)
WIDTHS = (10, 12, 14, 18)
COUNTS = points.Counts.of(96, oversample=3.0, importance=0.75)


class TorchHead(torch.nn.Module):
    """Names as in Mask2FormerForUniversalSegmentation, without its encoder."""

    def __init__(self):
        super().__init__()
        config = hf.Mask2FormerConfig(
            feature_size=SIZE.dim,
            mask_feature_size=SIZE.dim,
            hidden_dim=SIZE.dim,
            encoder_feedforward_dim=SIZE.pixel_ffn,
            encoder_layers=SIZE.pixel_layers,
            decoder_layers=SIZE.decoder_layers + 1,
            num_attention_heads=SIZE.num_heads,
            dim_feedforward=SIZE.decoder_ffn,
            num_queries=SIZE.num_queries,
        )
        self.model = torch.nn.Module()
        self.model.pixel_level_module = torch.nn.Module()
        self.model.pixel_level_module.decoder = hf.Mask2FormerPixelDecoder(config, WIDTHS)
        self.model.transformer_module = hf.Mask2FormerTransformerModule(SIZE.dim, config)
        self.class_predictor = torch.nn.Linear(SIZE.dim, CLASSES + 1)
        torch.nn.init.normal_(self.model.pixel_level_module.decoder.level_embed)

    def forward(self, features):
        pixels = self.model.pixel_level_module.decoder(
            features, output_hidden_states=False, return_dict=True
        )
        out = self.model.transformer_module(
            pixels.multi_scale_features, pixels.mask_features, output_hidden_states=True
        )
        hidden = [h.transpose(0, 1) for h in out.intermediate_hidden_states]
        return [self.class_predictor(h) for h in hidden], list(out.masks_queries_logits)


def torch_optimizer(head):
    """One group per tensor, no decay for norms and embeddings, as in the original's train_net."""
    norms = (torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.Embedding)
    groups = [
        {"params": [value], "weight_decay": 0.0 if isinstance(module, norms) else DECAY}
        for module in head.modules()
        for value in module.parameters(recurse=False)
    ]
    return torch.optim.AdamW(groups, lr=LR)


@pytest.fixture(scope="module")
def start():
    """A PyTorch head, and ours with its weights."""
    torch.manual_seed(0)
    head = TorchHead()
    graphdef, state = nnx.split(Mask2FormerHead(WIDTHS, SIZE, CLASSES, rngs=nnx.Rngs(0)))
    return head, graphdef, move(head.state_dict(), state)


def move(tensors, state):
    """PyTorch tensors by name, as a state like ours."""
    arrays = {name: value.detach().numpy() for name, value in tensors.items()}
    want = {"head": nnx.to_pure_dict(state)}
    tree = apply_rules(arrays, tables.get_table("mask2former_hf").rules, want)
    new = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(new, jax.tree.map(jnp.asarray, tree["head"]))
    return new


def batch(step):
    """Features at strides 4 to 32 of two images of 96 x 64, and their labels."""
    rng = np.random.default_rng(step)
    features = {
        f"res{level}": rng.normal(size=(2, 96 >> level, 64 >> level, width)).astype(np.float32)
        for level, width in zip(range(2, 6), WIDTHS, strict=True)
    }
    label = rng.integers(0, CLASSES + 1, (2, 8, 4)).repeat(12, 1).repeat(16, 2)
    label[label == CLASSES] = 255
    return features, label.astype(np.uint8), jax.random.split(jax.random.key(step), 2)


def torch_loss(head, features, label, keys):
    maps = [torch.from_numpy(x).permute(0, 3, 1, 2).contiguous() for x in features.values()]
    class_logits, mask_logits = head(maps)
    wanted = criterion.targets_of(torch.from_numpy(label), CLASSES)
    where = []
    for output in range(len(class_logits)):
        match = points.match_points(keys, output, COUNTS.uncertain + COUNTS.random)
        drawn = points.draw(keys, output, CLASSES, COUNTS)
        drawn = [torch.from_numpy(np.array(x)) for x in (match, drawn.candidates, drawn.random)]
        where.append(
            [
                criterion.Points(drawn[0][i], drawn[1][i][t.classes], drawn[2][i][t.classes])
                for i, t in enumerate(wanted)
            ]
        )
    return criterion.criterion(
        class_logits, mask_logits, wanted, where, uncertain=COUNTS.uncertain
    )[0]


@pytest.fixture(scope="module")
def jax_gradient(start):
    """Compiled once, which takes longer than all the rest: (weights, *batch) -> loss, gradient."""
    _, graphdef, _ = start

    def loss(state, features, label, keys):
        prediction = nnx.merge(graphdef, state)(features, all_outputs=True)
        targets = Targets(label, masks.present_classes(label, CLASSES))
        num_points = COUNTS.uncertain + COUNTS.random
        return segmentation.set_loss(prediction, targets, keys, num_points=num_points)[0]

    return jax.jit(jax.value_and_grad(loss))


def by_path(state):
    return {".".join(map(str, path)): np.asarray(v[...]) for path, v in nnx.to_flat_state(state)}


def test_gradients_of_all_weights_equal_the_reference(start, jax_gradient):
    head, _, state = start
    data = batch(0)
    head.zero_grad()
    torch_loss(head, *data).backward()
    theirs = by_path(move({n: p.grad for n, p in head.named_parameters()}, state))
    ours = by_path(jax_gradient(state, *data)[1])
    distances = {
        path: np.linalg.norm(ours[path] - expected) / np.linalg.norm(expected)
        for path, expected in theirs.items()
        if not path.endswith(UNSEEN)
    }
    assert not {path: distance for path, distance in distances.items() if distance > GRADIENT}


@pytest.mark.slow
def test_twenty_steps_of_training_follow_the_reference(start, jax_gradient):
    start_head, _, state = start
    head = TorchHead()
    head.load_state_dict(start_head.state_dict())
    theirs_tx = torch_optimizer(head)
    tx = optim.make_optimizer(lr=LR, steps=STEPS, weight_decay=DECAY, clip_norm=CLIP)

    @jax.jit
    def update(state, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, state)
        return optax.apply_updates(state, updates), opt_state

    first = by_path(state)
    opt_state = tx.init(state)
    ours, theirs = [], []
    for number in range(STEPS):
        data = batch(number % 4)
        loss, grads = jax_gradient(state, *data)
        state, opt_state = update(state, opt_state, grads)
        ours.append(float(loss))
        theirs_tx.zero_grad()
        loss = torch_loss(head, *data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP)
        theirs_tx.step()
        theirs.append(loss.item())

    assert np.mean(theirs[-4:]) < np.mean(theirs[:4])
    np.testing.assert_allclose(ours, theirs, rtol=LOSS)
    last = by_path(state)
    for path, expected in by_path(move(head.state_dict(), state)).items():
        if path.endswith(UNSEEN):
            continue
        assert not np.array_equal(last[path], first[path]), path
        distance = np.linalg.norm(last[path] - expected) / np.linalg.norm(expected)
        assert distance < WEIGHT, path
