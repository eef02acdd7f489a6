"""The text classifier from the programs: class matrix, training, evaluation with the ensemble."""

import numpy as np
import pytest
from flax import nnx

from clouds_jax.data.classes import get_space
from clouds_jax.nn.clip_text import SIZES, TextTower
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.text import class_matrix
from clouds_jax.training import checkpoint
from clouds_jax.weights import save_weights

pytestmark = pytest.mark.e2e

CONFIG = "--config=configs/warmup_gta.py:debug"
HEAD = "--config.head.classifier=text"
SHORT = ("--config.steps=2", "--config.log_every=1", "--config.eval.limit=1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a small CLIP, as `python -m porting convert` leaves it."""

    def build(make):
        return nnx.to_pure_dict(nnx.state(make(HostKeys(0))))

    size = SIZES["convnext_debug"]
    tree = {
        "encoder": build(get_encoder("convnext_debug").build),
        "text": build(lambda rngs: TextTower(size, rngs=rngs)),
    }
    folder = tmp_path_factory.mktemp("weights") / "clip"
    provenance = {"target": {"text": {"quick_gelu": size.quick_gelu}}}
    save_weights(folder, tree, provenance)
    return folder


@pytest.mark.slow
def test_a_text_classifier_trains_on_its_class_matrix_and_can_be_joined_with_clip(
    program, weights, tmp_path
):
    arguments = [CONFIG, HEAD, f"--config.encoder.weights={weights}", f"--workdir={tmp_path}/run"]
    early = program("clouds_jax.train", *arguments, *SHORT)
    assert early.returncode == 1 and "Traceback" not in early.stderr
    command = f"python -m clouds_jax.text --weights {weights} --space cityscapes19"
    assert command in early.stderr

    made = program(*command.split()[2:])
    assert made.returncode == 0, made.stderr
    trained = program("clouds_jax.train", *arguments, *SHORT)
    assert trained.returncode == 0, trained.stderr
    tree, _ = checkpoint.load_run(tmp_path / "run")
    head = tree["head"]["transformer_decoder"]["class_embed"]
    matrix = class_matrix.load_class_matrix(weights, get_space("cityscapes19")).matrix
    np.testing.assert_array_equal(head["matrix"], matrix)
    assert head["void_embedding"].shape == (1, 12) and "ensemble" not in tree

    joined = program(
        "clouds_jax.evaluate", *arguments, "--config.head.ensemble.enabled=True", "--limit=1",
        "--panels=0",
    )  # fmt: skip
    assert joined.returncode == 0, joined.stderr
    assert "fake/train: mIoU" in joined.stdout
