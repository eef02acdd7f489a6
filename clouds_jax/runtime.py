"""Settings of the process and aids for finding faults: caches, NaN checks, the profile window."""

import os
import pathlib

import jax
from absl import logging

CACHE_VARIABLE = "CLOUDS_COMPILE_CACHE"


def setup(*, compile_cache: str = "", nans: bool = False, compiles: bool = False) -> None:
    """Sets JAX up for a program; call before the first computation.

    Args:
        compile_cache: folder of compiled programs, "" for none; the environment's
            CLOUDS_COMPILE_CACHE wins.
        nans: stop at the operation that makes the first NaN.
        compiles: log every compilation and why the cached one did not serve.
    """
    cache = os.environ.get(CACHE_VARIABLE, compile_cache)
    if cache:
        folder = pathlib.Path(cache).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            jax.config.update("jax_compilation_cache_dir", str(folder))
        except OSError as error:
            logging.warning(
                "no compile cache: %s (set %s to another folder)", error, CACHE_VARIABLE
            )
    jax.config.update("jax_debug_nans", nans)
    jax.config.update("jax_log_compiles", compiles)
    jax.config.update("jax_explain_cache_misses", compiles)


class ProfileWindow:
    """Records the steps first..first+steps-1 to `{workdir}/profile`, for TensorBoard or Perfetto.

    Args:
        workdir: the run's folder.
        first: first recorded step, counted from 1.
        steps: how many; 0 records nothing.
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
