"""Which of several equal implementations runs on a platform."""

from collections.abc import Callable

import jax


def by_platform(*, default: Callable, **implementations: Callable) -> Callable:
    """Returns the implementation for the default backend, chosen when the caller is traced.

    All implementations compute the same function, so a program lowered for another platform is
    correct, if slow. `jax.lax.platform_dependent` would keep every one of them in the program:
    tracing a training step with its gradients then took twice as long.

    Args:
        default: for the platforms without an entry of their own.
        implementations: keyed by backend: "cpu", "gpu", "tpu".
    """
    return implementations.get(jax.default_backend(), default)
