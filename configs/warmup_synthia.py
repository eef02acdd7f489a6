r"""Warm-up on SYNTHIA alone: 16 of the 19 classes, poly learning rate.

    python -m clouds_jax.train --config configs/warmup_synthia.py --workdir runs/warmup_synthia

A minute on a laptop, to see that everything is wired:

    python -m clouds_jax.train --config configs/warmup_synthia.py:debug --workdir runs/debug
"""

from configs import base


def get_config(mode: str = ""):
    config = base.get_config()
    config.steps = 30_000
    config.data.batch = dict(synthia=8)
    config.data.initial_size = (760, 1280)  # (paper)
    config.optimizer.update(lr=1e-5, schedule="poly", power=0.9)
    config.evals = {"cityscapes/val": 1_500, "bdd100k/val": 1_500, "mapillary/val": 1_500}
    config.checkpoint_every = 1_500
    return base.finish(config, mode)
