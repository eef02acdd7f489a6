"""Runs the training program and kills it (SIGKILL) at a chosen moment, or lets it fail.

python tests/e2e/train_killed.py running 3 --config ... --workdir ...
python tests/e2e/train_killed.py saving 4 --config ... --workdir ...
python tests/e2e/train_killed.py scoring 4 --config ... --workdir ...    # runs out of memory there
"""

import os
import signal
import sys

import jax

from clouds_jax import train
from clouds_jax.training import checkpoint, loop


def die_after(owner: type, method: str, step: int) -> None:
    """Kills this process when `owner.method(step, ...)` has returned."""
    original = getattr(owner, method)

    def replacement(self, at, *args, **kwargs):
        original(self, at, *args, **kwargs)
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, method, replacement)


def fail_to_score(step: int) -> None:
    """Lets every evaluation after `step` raise what XLA raises when memory is short."""
    original = train.score

    def replacement(*args):
        if args[-2] == step:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        original(*args)

    train.score = replacement


if __name__ == "__main__":
    moment, step = sys.argv.pop(1), int(sys.argv.pop(1))
    if moment == "running":
        die_after(loop.Reader, "add", step)
    elif moment == "scoring":
        fail_to_score(step)
    else:
        die_after(checkpoint.RunCheckpoints, "save", step)
    train.program()
