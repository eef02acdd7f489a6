"""Precision of products and dtype of the head: what is set, what is refused, what it costs."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax import runtime, train
from clouds_jax.config import diff
from clouds_jax.config.experiment import read_experiment
from clouds_jax.config.model import read_model
from clouds_jax.config.training import PRECISIONS, read_precision
from clouds_jax.losses import segmentation
from clouds_jax.nn import clouds
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.ops import deformable_attention
from clouds_jax.typing import Targets
from configs import warmup_camvid_fpn, warmup_gta

OPTION = "jax_default_matmul_precision"
HEADS = {
    "mask2former": clouds.HeadSize(
        num_queries=5, dim=16, num_heads=2, pixel_layers=1, pixel_ffn=24, decoder_layers=3,
        decoder_ffn=32, num_points=1,
    ),
    "fpn": clouds.FPNSize(dim=16),
}  # fmt: skip
IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)), jnp.uint8)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.delenv(runtime.PRECISION_VARIABLE, raising=False)
    before = jax.config.values[OPTION]
    yield
    jax.config.update(OPTION, before)


def model(head, dtype):
    """(graphdef, state): the same random weights whatever the dtype."""
    numbers = vars(HEADS[head]) | {"dtype": dtype}
    size = type(HEADS[head])(**numbers)
    return nnx.split(clouds.build_model("convnext_debug", size, 4, rngs=HostKeys(0)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_computes_with_the_precision_of_its_config(precision, monkeypatch, tmp_path):
    config = warmup_gta.get_config("debug")
    config.matmul_precision = precision
    found = []

    def trained(experiment, workdir):
        found.append(jax.config.values[OPTION])
        return types.SimpleNamespace(step=jnp.int32(experiment.run.steps))

    monkeypatch.setenv(runtime.PRECISION_VARIABLE, "highest")  # the run's own wins
    monkeypatch.setattr(train, "train", trained)
    monkeypatch.setattr(
        train.flags, "FLAGS", types.SimpleNamespace(config=config, workdir=str(tmp_path / "run"))
    )
    train.main(["train"])
    assert found == [precision]


def test_without_a_run_the_environment_wins_over_the_default(monkeypatch):
    runtime.setup()
    assert jax.config.values[OPTION] == "tensorfloat32"
    monkeypatch.setenv(runtime.PRECISION_VARIABLE, "float32")
    runtime.setup()
    assert jax.config.values[OPTION] == "float32"
    runtime.use_matmul_precision("bfloat16")
    assert jax.config.values[OPTION] == "bfloat16"


def test_the_precision_of_a_model_alone_is_nobodys():
    config = warmup_gta.get_config("debug")
    assert read_precision(config.to_dict()) == "tensorfloat32"
    assert read_precision(read_experiment(config).model.as_json()) is None
    with pytest.raises(ValueError, match="is 'tf32'; it must be one of: bfloat16, tensorfloat32"):
        read_precision(config.to_dict() | {"matmul_precision": "tf32"})


@pytest.mark.parametrize("source", [warmup_gta, warmup_camvid_fpn])
def test_older_runs_had_jaxs_default_and_a_float32_head(source):
    config = source.get_config("debug").to_dict()
    older = {key: value for key, value in config.items() if key != "matmul_precision"}
    older["head"] = {key: value for key, value in config["head"].items() if key != "dtype"}
    experiment = read_experiment(older)
    assert experiment.run.matmul_precision == read_precision(older) == "bfloat16"
    assert experiment.model.head.dtype == "float32"
    changed = 'matmul_precision "bfloat16", now "tensorfloat32"'
    assert diff.changed_keys(older, config) == [changed]
    same = config | {"matmul_precision": "bfloat16"}
    assert not diff.changed_keys(older, same)
    same["head"] = config["head"] | {"dtype": "bfloat16"}
    assert diff.changed_keys(older, same) == ['head.dtype "float32", now "bfloat16"']


def test_weights_folders_without_a_dtype_describe_a_float32_head():
    described = read_experiment(warmup_gta.get_config("debug")).model
    json = described.as_json()
    assert read_model(json) == described
    del json["head"]["dtype"]
    assert read_model(json) == described


@pytest.mark.parametrize("head", HEADS)
def test_scores_of_a_bfloat16_head_are_near_those_of_float32(head):
    def scores(dtype):
        graphdef, state = model(head, dtype)
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
        return jax.jit(lambda state: nnx.merge(graphdef, state).scores(IMAGES))(state)

    exact, half = scores("float32"), scores("bfloat16")
    assert half.dtype == jnp.float32 and not (half == exact).all()
    error = np.linalg.norm(half - exact) / np.linalg.norm(exact)
    assert error < 0.02, error


@pytest.mark.parametrize("head", HEADS)
def test_loss_and_gradients_of_a_bfloat16_head_are_finite_and_float32(head):
    label = jnp.asarray(np.random.default_rng(1).integers(0, 4, (2, 64, 96)), jnp.uint8)
    targets = Targets(label, jnp.ones((2, 4), bool))
    keys = jax.random.split(jax.random.key(0), 2)

    def gradients(dtype):
        graphdef, state = model(head, dtype)

        def loss(state):
            output = nnx.merge(graphdef, state)(IMAGES, all_outputs=True)
            assert {leaf.dtype for leaf in jax.tree.leaves(output)} == {jnp.dtype("float32")}
            if head == "fpn":
                return segmentation.pixel_loss(output, targets, keys)[0]
            return segmentation.set_loss(output, targets, keys, num_points=64)[0]

        return jax.jit(jax.value_and_grad(loss))(state)

    (exact, _), (half, grads) = gradients("float32"), gradients("bfloat16")
    np.testing.assert_allclose(half, exact, rtol=0.02)
    for leaf in jax.tree.leaves(grads):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()
    trained = jax.tree.leaves(grads["head"])
    assert sum(float(jnp.abs(leaf).max()) > 0 for leaf in trained) > 0.8 * len(trained)


def test_a_bfloat16_head_samples_bfloat16_values_at_float32_points(monkeypatch):
    found = []
    attend = deformable_attention.deform_attn

    def noted(values, sizes, points, weights):
        found.append(tuple(str(x.dtype) for x in (values, points, weights)))
        return attend(values, sizes, points, weights)

    monkeypatch.setattr(deformable_attention, "deform_attn", noted)
    graphdef, state = model("mask2former", "bfloat16")
    jax.eval_shape(lambda state: nnx.merge(graphdef, state).scores(IMAGES), state)
    assert found and {*found} == {("bfloat16", "float32", "float32")}
