r"""The dense baseline on CamVid: an FPN head on the same frozen features.

    python -m clouds_jax.train --config configs/warmup_camvid_fpn.py --workdir runs/camvid_fpn

Weights and shards as for warmup_camvid.py. A minute on a laptop, to see that all is wired:

    python -m clouds_jax.train --config configs/warmup_camvid_fpn.py:debug --workdir runs/debug
"""

from configs import base, warmup_camvid


def get_config(mode: str = ""):
    config = warmup_camvid.get_config()
    config.steps = 400
    config.head = dict(name="fpn", dim=128, dtype="float32")
    # Whole images, flips only.
    config.data.update(scale=(1.0, 1.0), colour=False)
    config.optimizer.update(lr=1e-3, weight_decay=0.01, clip_norm=1.0, lr_warmup_steps=0)
    config.evals = {"camvid/test": 100}
    return base.finish(config, mode)
