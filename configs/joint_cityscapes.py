r"""Joint phase on Cityscapes and generated images: CLOUDS, the paper's Table 3.

    python -m clouds_jax.train --config configs/joint_cityscapes.py --workdir runs/joint_city \
        --config.init_from=runs/warmup_city

Before it, the warm-up (`configs/warmup_cityscapes.py`), and the generated images, SAM's weights
and embeddings as the header of `configs/joint_gta.py` has them: they serve every source.

A minute on a laptop, with made-up data:

    python -m clouds_jax.train --config configs/joint_cityscapes.py:debug --workdir runs/debug

`:paper` and `:fixed` take the settings of the paper's text and of our reading instead of those of
the released code; see `PRESETS` in `configs/base.py`.
"""

from configs import base, warmup_cityscapes


def get_config(mode: str = ""):
    """The config; mode "debug", "release" (the default), "paper", "fixed"."""
    config = warmup_cityscapes.get_config()
    config.steps = 10_000
    return base.joint(config, mode, source="cityscapes", init_from="runs/warmup_city")
