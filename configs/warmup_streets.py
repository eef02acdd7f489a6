r"""Warm-up on our own drawn streets by day in one city, scored on a city not seen.

    python -m porting convert efficientnet_lite0 package:efficientnet_lite0 \
        --output weights/efficientnet_lite0
    python -m clouds_jax.data.build streets_oldtown_day --split train --output shards
    python -m clouds_jax.data.build streets_oldtown_day --split val --output shards
    python -m clouds_jax.data.build streets_newtown_day --split val --output shards
    python -m clouds_jax.train --config configs/warmup_streets.py --workdir runs/warmup_streets

A minute on a laptop, to see that everything is wired:

    python -m clouds_jax.train --config configs/warmup_streets.py:debug --workdir runs/debug
"""

from configs import base


def get_config(mode: str = ""):
    config = base.get_config()
    config.steps = 400
    config.encoder.update(name="efficientnet_lite0", weights="weights/efficientnet_lite0")
    # A head for two CPU cores.
    config.head.update(
        num_queries=40, dim=96, num_heads=8, pixel_layers=2, pixel_ffn=256, decoder_layers=3,
        decoder_ffn=256,
    )  # fmt: skip
    config.data.batch = dict(streets_oldtown_day=8)
    config.data.update(
        crop=(256, 384), scale=(0.4, 1.0), crop_offsets="independent", threads=2, buffer=2
    )
    config.loss.num_points = 2_048
    config.optimizer.update(lr=5e-4, clip_norm=1.0, schedule="poly", lr_warmup_steps=50)
    config.evals = {"streets_oldtown_day/val": 100, "streets_newtown_day/val": 100}
    config.eval.protocol = "native"
    config.checkpoint_every = 100
    config.log_every = 10
    return base.finish(config, mode)
