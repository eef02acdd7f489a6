"""Traces kept on disk: found again, never for other code, shapes or settings, and never trusted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.model import traced
from clouds_jax.nn.layers import Linear
from clouds_jax.nn.rngs import HostKeys


@pytest.fixture
def folder(tmp_path):
    """An empty compile cache for one test."""
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


class Counted:
    """A function of a tree that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, tree, x):
        self.traces += 1
        return {"sum": tree["a"] + x, "none": None}


TREE = {"a": jnp.arange(3.0)}


def kept(folder):
    return sorted(folder.glob("traced-*.stablehlo"))


def test_a_second_program_does_not_trace_again(folder):
    first, second = Counted(), Counted()
    for function in (first, second):
        program = traced.jit(function, ("model", 1))
        for _ in range(2):
            out = program(TREE, jnp.ones(3))
            np.testing.assert_array_equal(out["sum"], [1, 2, 3])
            assert out["none"] is None
    assert (first.traces, second.traces) == (1, 0)
    assert len(kept(folder)) == 1


@pytest.mark.parametrize("other", ["about", "shape", "dtype", "structure", "precision", "sources"])
def test_anything_else_is_traced_anew(folder, other, monkeypatch):
    traced.jit(Counted(), "model")(TREE, jnp.ones(3))
    function, about, tree, x = Counted(), "model", TREE, jnp.ones(3)
    if other == "about":
        about = "another"
    elif other == "shape":
        x = jnp.ones(1)
    elif other == "dtype":
        x = jnp.ones(3, jnp.int32)
    elif other == "structure":
        tree = {"a": TREE["a"], "b": jnp.ones(2)}
    elif other == "sources":
        monkeypatch.setattr(traced, "_sources", lambda: "edited")
    with jax.default_matmul_precision("highest" if other == "precision" else None):
        traced.jit(function, about)(tree, x)
    assert function.traces == 1 and len(kept(folder)) == 2


def test_addresses_do_not_count(folder):
    for _ in range(2):
        traced.jit(Counted(), object())(TREE, jnp.ones(3))
    assert len(kept(folder)) == 1


def test_a_damaged_file_is_replaced(folder):
    traced.jit(Counted(), "model")(TREE, jnp.ones(3))
    (path,) = kept(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    function = Counted()
    out = traced.jit(function, "model")(TREE, jnp.ones(3))
    np.testing.assert_array_equal(out["sum"], [1, 2, 3])
    assert function.traces == 1 and path.stat().st_size == len(whole)


def test_without_a_cache_and_on_several_devices_nothing_is_kept(folder):
    mesh = jax.make_mesh((2,), ("data",))
    spread = jax.device_put(jnp.arange(4.0), jax.NamedSharding(mesh, jax.P("data")))
    traced.jit(Counted(), "model")({"a": spread}, spread)
    jax.config.update("jax_compilation_cache_dir", None)
    out = traced.jit(Counted(), "model")(TREE, jnp.ones(3))
    np.testing.assert_array_equal(out["sum"], [1, 2, 3])
    assert not kept(folder)


def test_only_code_of_the_package_is_covered():
    class Own(nnx.Module):
        def __init__(self):
            self.inner = Linear(2, 2, rngs=HostKeys(0))

    assert traced.covers(nnx.graphdef(Own().inner))
    assert not traced.covers(nnx.graphdef(Own()))
