"""How the state is made and filled."""

import jax
import numpy as np
import pytest
import small_run

from clouds_jax import sharding
from clouds_jax.training import checkpoint
from clouds_jax.training.state import abstract_state, make_state

REPLICATE = ((".*", "replicate"),)


def arguments(**changes):
    return (small_run.Model, small_run.optimizer()), dict(
        seed=0, mesh=sharding.make_mesh(), rules=REPLICATE
    ) | changes


def encoder_weights(**changes):
    rng = np.random.default_rng(0)
    conv = {"kernel": rng.normal(size=(4, 4, 3, 8)), "bias": np.arange(8.0)}
    return {"encoder": {"conv": {**conv, **changes}}}


def test_given_weights_replace_the_random_ones_and_nothing_else():
    args, options = arguments()
    _, random, _ = make_state(*args, **options)
    _, filled, shardings = make_state(*args, **options, weights=encoder_weights())
    conv = filled.frozen["encoder"]["conv"]
    np.testing.assert_array_equal(conv["bias"][...], np.arange(8.0))
    assert conv["kernel"][...].dtype == np.float32
    for x, y in zip(jax.tree.leaves(random.params), jax.tree.leaves(filled.params), strict=True):
        np.testing.assert_array_equal(x, y)
    assert jax.tree.structure(filled) == jax.tree.structure(random)
    assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, filled, shardings))


def test_weights_of_another_model_are_refused_with_all_misfits():
    args, options = arguments()
    weights = encoder_weights(bias=np.zeros(9), scale=np.zeros(1))
    del weights["encoder"]["conv"]["kernel"]
    with pytest.raises(ValueError, match="3 misfits") as error:
        make_state(*args, **options, weights=weights)
    text = str(error.value)
    assert "encoder.conv.kernel: not in the weights" in text
    assert "encoder.conv.scale: not in the model" in text
    assert "encoder.conv.bias: (9,) in the weights, (8,) in the model" in text


def test_the_abstract_state_is_that_of_the_made_one():
    args, options = arguments()
    _, shape, shardings = abstract_state(*args, **options)
    _, state, _ = make_state(*args, **options)
    assert jax.tree.structure(shape) == jax.tree.structure(state)
    same = jax.tree.map(
        lambda a, x, s: (a.shape, a.dtype, a.sharding) == (x.shape, x.dtype, s),
        shape, state, shardings,
    )  # fmt: skip
    assert jax.tree.all(same)


def test_the_seed_decides_weights_and_key():
    args, options = arguments()
    a, b = (make_state(*args, **options | {"seed": s})[1] for s in (0, 1))
    assert not (jax.random.key_data(a.key) == jax.random.key_data(b.key)).all()
    kernel = [s.params["head"]["classify"]["kernel"][...] for s in (a, b)]
    assert not (kernel[0] == kernel[1]).all()


def test_a_checkpoint_of_a_run_gives_its_weights_by_the_models_paths(tmp_path):
    args, options = arguments()
    _, state, _ = make_state(*args, **options)
    checkpoints = checkpoint.RunCheckpoints(tmp_path, keep=1, metadata={"config": {}})
    checkpoints.save(3, state)
    checkpoints.close()
    tree, metadata = checkpoint.load_run(tmp_path)
    assert metadata["step"] == 3
    _, again, _ = make_state(*args, **options | {"seed": 9}, weights=tree)
    for part in ("params", "frozen"):
        for x, y in zip(
            jax.tree.leaves(getattr(state, part)),
            jax.tree.leaves(getattr(again, part)),
            strict=True,
        ):
            np.testing.assert_array_equal(x, y)
