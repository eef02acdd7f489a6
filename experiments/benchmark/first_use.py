"""Rows of the first minute: from the shell to a mask, and a model with random weights."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import clouds_jax
from clouds_jax import images
from clouds_jax.runtime import CACHE_VARIABLE
from experiments.benchmark.rows import Setting, pixels
from experiments.benchmark.timing import Case

# What a model cost before parameters were drawn on the host: JAX compiles every shape it draws.
_EAGER = """
from flax import nnx
from clouds_jax.nn.clouds import HeadSize, build_model
build_model("{encoder}", HeadSize(), 19, rngs=nnx.Rngs(0))
"""


# The head of configs/warmup_streets.py, for two CPU cores.
_LAPTOP_HEAD = dict(
    num_queries=40, dim=96, num_heads=8, pixel_layers=2, pixel_ffn=256, decoder_layers=3,
    decoder_ffn=256,
)  # fmt: skip


def first_mask(setting: Setting) -> Iterator[Case]:
    """One photo by `python -m clouds_jax.predict`, with an empty and a full compile cache."""
    encoder = setting.choose("convnext_debug", "efficientnet_lite0", "convnext_large_d_320")
    size = setting.choose((64, 96), (544, 960), (1024, 2048))
    folder = Path(tempfile.mkdtemp())
    clouds_jax.build(encoder, **setting.choose({}, _LAPTOP_HEAD, {})).save(folder / "weights")
    images.write_png(folder / "photo.png", pixels(1, size)[0])

    def run(name: str) -> list[np.ndarray]:
        if name == "empty":
            shutil.rmtree(folder / "cache", ignore_errors=True)
        _python(
            "-m", "clouds_jax.predict", f"--weights={folder}/weights", f"--output={folder}/out",
            f"{folder}/photo.png", cache=folder / "cache",
        )  # fmt: skip
        return []

    try:
        for name in ("empty", "full"):
            yield Case(
                f"first_mask: {encoder}, {size[0]}x{size[1]}, {name} cache", run, (name,),
                host=True, note="process, imports, weights, compilation, prediction, two PNG files",
            )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(setting: Setting) -> Iterator[Case]:
    """A model with random weights and the full head, drawn on the host and by JAX."""
    for encoder in setting.choose(
        ("convnext_debug",), ("convnext_tiny", "convnext_large_d_320"), ("convnext_large_d_320",)
    ):

        def run(encoder: str = encoder) -> list[np.ndarray]:
            clouds_jax.build(encoder)
            return []

        yield Case(
            f"build: {encoder}", run, (), host=True, note="clouds_jax.build, in a running process"
        )
    if setting.small:
        return

    def eager() -> list[np.ndarray]:
        _python("-c", _EAGER.format(encoder="convnext_tiny"), cache=None)
        return []

    yield Case(
        "build: convnext_tiny, operation by operation", eager, (), host=True,
        note="nnx.Rngs outside of a compiled program; a process of its own, imports included",
    )  # fmt: skip


def _python(*arguments: str, cache: Path | None) -> None:
    environment = os.environ | {CACHE_VARIABLE: str(cache or "")}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[1]} ended with {done.returncode}: {done.stderr[-500:]}")


ROWS: dict[str, Callable[[Setting], Iterator[Case]]] = {"first_mask": first_mask, "build": build}
