"""Which of several equal formulations suits the platform that runs."""

from collections.abc import Callable

import jax


def suited(*, default: Callable, **forms: Callable) -> Callable:
    """The form of the platform, chosen when the caller is traced.

    Every form gives the same everywhere, so that a program which is lowered for another platform is
    right, if slow. `jax.lax.platform_dependent` keeps them all: tracing a training step with its
    gradients took twice as long.

    Args:
        default: for the platforms that have none.
        forms: by "cpu", "gpu", "tpu".
    """
    return forms.get(jax.default_backend(), default)
