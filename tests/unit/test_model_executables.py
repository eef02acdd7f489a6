"""Programs kept on disk: found again, whole, never for other operations, shapes or settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache

from clouds_jax.model import executables
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
    return sorted(folder.glob("traced-*.txt"))


def test_a_second_program_does_not_trace_again(folder):
    first, second = Counted(), Counted()
    for function in (first, second):
        program = executables.jit(function, ("model", 1))
        for _ in range(2):
            out = program(TREE, jnp.ones(3))
            np.testing.assert_array_equal(out["sum"], [1, 2, 3])
            assert out["none"] is None
    assert (first.traces, second.traces) == (1, 0)
    assert len(kept(folder)) == 1


@pytest.mark.parametrize("other", ["about", "shape", "dtype", "structure", "precision", "sources"])
def test_anything_else_is_traced_anew(folder, other, monkeypatch):
    executables.jit(Counted(), "model")(TREE, jnp.ones(3))
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
        monkeypatch.setattr(executables, "_sources", lambda: "edited")
    with jax.default_matmul_precision("highest" if other == "precision" else None):
        executables.jit(function, about)(tree, x)
    assert function.traces == 1 and len(kept(folder)) == 2


def test_edits_that_change_no_computation_find_the_program(folder, monkeypatch):
    executables.jit(Counted(), "model")(TREE, jnp.ones(3))
    monkeypatch.setattr(executables, "_sources", lambda: "edited")
    function = Counted()
    out = executables.jit(function, "model")(TREE, jnp.ones(3))
    np.testing.assert_array_equal(out["sum"], [1, 2, 3])
    assert function.traces == 1
    assert len(kept(folder)) == 2 and len(list(folder.glob("program-*.pickle"))) == 1


def test_a_program_that_jax_has_compiled_before_is_kept_whole(folder):
    """What comes out of JAX's compile cache lacks functions when it is written down again."""
    x = jnp.ones((8, 8, 8))

    def function(x):
        return jnp.concatenate([jnp.sort(x, 0) @ x, x[::-1]]), jnp.cumsum(x)

    before = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()  # it would stay in the folder of before
    try:
        # as `executables.jit` lowers it, so that JAX's cache holds this very program
        jax.jit(lambda leaves: function(*leaves))([x])
        assert list(folder.glob("jit_*"))
        executables.jit(function, "model")(x)
        out = executables.jit(function, "model")(x)  # from the file
        np.testing.assert_allclose(out[1][-1], 512)
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
        compilation_cache.reset_cache()
    assert jax.config.values["jax_enable_compilation_cache"]


def test_a_program_that_cannot_be_written_down_still_runs(folder, monkeypatch):
    def refuse(compiled):
        raise ValueError("Compilation does not support serialization")

    monkeypatch.setattr(executables.serialize_executable, "serialize", refuse)
    out = executables.jit(Counted(), "model")(TREE, jnp.ones(3))
    np.testing.assert_array_equal(out["sum"], [1, 2, 3])
    assert not kept(folder)


def test_a_cache_that_is_switched_off_stays_off(folder):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        executables.jit(Counted(), "model")(TREE, jnp.ones(3))
        assert not jax.config.values["jax_enable_compilation_cache"]
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not list(folder.iterdir())


def test_addresses_do_not_count(folder):
    for _ in range(2):
        executables.jit(Counted(), object())(TREE, jnp.ones(3))
    assert len(kept(folder)) == 1


def test_a_damaged_file_is_replaced(folder):
    executables.jit(Counted(), "model")(TREE, jnp.ones(3))
    (path,) = folder.glob("program-*.pickle")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    function = Counted()
    out = executables.jit(function, "model")(TREE, jnp.ones(3))
    np.testing.assert_array_equal(out["sum"], [1, 2, 3])
    assert function.traces == 1 and len(path.read_bytes()) > len(whole) // 2


def test_without_a_cache_and_on_several_devices_nothing_is_kept(folder):
    mesh = jax.make_mesh((2,), ("data",))
    spread = jax.device_put(jnp.arange(4.0), jax.NamedSharding(mesh, jax.P("data")))
    executables.jit(Counted(), "model")({"a": spread}, spread)
    jax.config.update("jax_compilation_cache_dir", None)
    out = executables.jit(Counted(), "model")(TREE, jnp.ones(3))
    np.testing.assert_array_equal(out["sum"], [1, 2, 3])
    assert not kept(folder)


def test_only_code_of_the_package_is_covered():
    class Own(nnx.Module):
        def __init__(self):
            self.inner = Linear(2, 2, rngs=HostKeys(0))

    assert executables.covers(nnx.graphdef(Own().inner))
    assert not executables.covers(nnx.graphdef(Own()))
