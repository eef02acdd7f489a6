"""Runs the training program and kills it (SIGKILL) at a chosen moment.

python tests/e2e/train_killed.py running 3 --config ... --workdir ...
python tests/e2e/train_killed.py saving 4 --config ... --workdir ...
"""

import os
import signal
import sys

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


if __name__ == "__main__":
    moment, step = sys.argv.pop(1), int(sys.argv.pop(1))
    if moment == "running":
        die_after(loop.Reader, "add", step)
    else:
        die_after(checkpoint.RunCheckpoints, "save", step)
    train.program()
