r"""Warm-up on Cityscapes alone, scored under the adverse conditions of ACDC.

    python -m clouds_jax.train --config configs/warmup_cityscapes.py --workdir runs/warmup_city

A minute on a laptop, to see that everything is wired:

    python -m clouds_jax.train --config configs/warmup_cityscapes.py:debug --workdir runs/debug
"""

from configs import base


def get_config(mode: str = ""):
    config = base.get_config()
    config.steps = 5_000  # the released config; the paper's text says 10,000
    config.data.batch = dict(cityscapes=8)
    config.data.initial_size = (1024, 2048)  # (paper)
    config.optimizer.lr = 1e-4
    config.evals = {
        "acdc/fog_val": 500, "acdc/night_val": 500, "acdc/rain_val": 500, "acdc/snow_val": 500,
        "cityscapes/val": 500,
    }  # fmt: skip
    config.checkpoint_every = 500
    return base.finish(config, mode)
