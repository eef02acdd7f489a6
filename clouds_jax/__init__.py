"""CLOUDS in JAX: load a model, predict, build one.

Everything here is loaded when it is first used: importing the package imports no library and
touches no device.
"""

import gc
import importlib
import sys
import typing
from typing import Any

if typing.TYPE_CHECKING:
    from clouds_jax import ops
    from clouds_jax.data.datasets import list_datasets
    from clouds_jax.model.load import build, list_models, load
    from clouds_jax.model.model import Model
    from clouds_jax.model.sam import Sam
    from clouds_jax.nn.encoders.registry import list_encoders

__all__ = [
    "Model",
    "Sam",
    "build",
    "list_datasets",
    "list_encoders",
    "list_models",
    "load",
    "ops",
]

_HOMES = {
    "Model": "clouds_jax.model.model",
    "Sam": "clouds_jax.model.sam",
    "build": "clouds_jax.model.load",
    "list_datasets": "clouds_jax.data.datasets",
    "list_encoders": "clouds_jax.nn.encoders.registry",
    "list_models": "clouds_jax.model.load",
    "load": "clouds_jax.model.load",
}


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("clouds_jax.ops")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"clouds_jax has no {name!r}; it has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _without_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # runpy looks for one of the programs
    sys.excepthook = _without_traceback  # Ctrl-C, before the program handles it
    # Each collection would walk all that was imported so far, a third of the time that imports
    # take; `command_line.one_line_errors` turns it on again.
    gc.disable()
