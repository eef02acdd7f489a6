r"""Warm-up on GTA5 alone: the paper's row "source only", GTA5 to Cityscapes, BDD100K, Mapillary.

    python -m clouds_jax.train --config configs/warmup_gta.py --workdir runs/warmup_gta

A minute on a laptop, to see that everything is wired:

    python -m clouds_jax.train --config configs/warmup_gta.py:debug --workdir runs/debug
"""

from configs import base


def get_config(mode: str = ""):
    config = base.get_config()
    config.steps = 40_000
    config.data.batch = dict(gta5=8)
    config.data.initial_size = (1052, 1914)  # (paper)
    config.optimizer.lr = 1e-5
    config.evals = {"cityscapes/val": 4_000, "bdd100k/val": 4_000, "mapillary/val": 4_000}
    config.checkpoint_every = 4_000
    return base.finish(config, mode)
