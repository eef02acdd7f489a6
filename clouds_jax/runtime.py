"""Settings of the process and aids for finding faults: caches, precision, NaN checks, profiles."""

import os
import pathlib

import jax
from absl import logging

CACHE_VARIABLE = "CLOUDS_COMPILE_CACHE"
DEFAULT_CACHE = "~/.cache/clouds_jax/xla"
PRECISION_VARIABLE = "JAX_DEFAULT_MATMUL_PRECISION"  # JAX's own
DEFAULT_PRECISION = "tensorfloat32"


def use_compile_cache(folder: str = DEFAULT_CACHE) -> None:
    """Keeps compiled programs on disk, so that the same one starts at once the next time.

    The environment's CLOUDS_COMPILE_CACHE wins over `folder`, "" switches the cache off; a cache
    that the process has already set up stays. A folder that cannot be made is a warning.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    chosen = os.environ.get(CACHE_VARIABLE, folder)
    if not chosen:
        return
    path = pathlib.Path(chosen).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logging.warning("no compile cache: %s (set %s to another folder)", error, CACHE_VARIABLE)
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    # Short programs too: a start consists of dozens of them.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def use_matmul_precision(precision: str | None = None) -> None:
    """Sets how precisely products of float32 numbers are computed in this process.

    Args:
        precision: that of a run, `config.matmul_precision`, which wins over the environment. None
            where no run says it: JAX_DEFAULT_MATMUL_PRECISION of the environment wins over
            "tensorfloat32".
    """
    chosen = precision or os.environ.get(PRECISION_VARIABLE) or DEFAULT_PRECISION
    jax.config.update("jax_default_matmul_precision", chosen)


def setup(
    *, compile_cache: str = DEFAULT_CACHE, nans: bool = False, compiles: bool = False
) -> None:
    """Sets JAX up for a program; call before the first computation.

    A program of a run then sets the run's own precision, see `use_matmul_precision`.

    Args:
        compile_cache: folder of compiled programs, see `use_compile_cache`.
        nans: stop at the operation that produces the first NaN.
        compiles: log every compilation and why the cached program did not serve.
    """
    use_compile_cache(compile_cache)
    use_matmul_precision()
    jax.config.update("jax_debug_nans", nans)
    jax.config.update("jax_log_compiles", compiles)
    jax.config.update("jax_explain_cache_misses", compiles)


def check_devices() -> None:
    """Refuses to run where JAX finds none of the devices that it was told to use.

    Raises:
        ValueError: there are none.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX fails on an assertion the second time
        wanted = jax.config.values["jax_platforms"]
        raise ValueError(
            f"JAX finds no device of JAX_PLATFORMS={wanted} here; unset it, or install the JAX for"
            f" it (pip install -e '.[cuda13]' for NVIDIA GPUs). {error}".strip()
        ) from error


class ProfileWindow:
    """Records the steps first..first+steps-1 to `{workdir}/profile`, for TensorBoard or Perfetto.

    Args:
        workdir: the run's folder.
        first: first recorded step, counted from 1.
        steps: number of steps; 0 records nothing.
    """

    def __init__(self, workdir: str | os.PathLike, *, first: int, steps: int):
        self._folder = str(pathlib.Path(workdir) / "profile")
        self._first, self._steps = first, steps
        self._running = False

    def before(self, step: int) -> None:
        """Starts the recording when `step` is the first of the window."""
        if self._steps and step == self._first:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, metrics: object) -> None:
        """Ends the recording after the window's last step, when its `metrics` are there."""
        if self._running and step >= self._first + self._steps - 1:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """Writes what was recorded."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
