r"""Joint phase on SYNTHIA and generated images: CLOUDS, the paper's Table 2.

    python -m clouds_jax.train --config configs/joint_synthia.py --workdir runs/joint_synthia \
        --config.init_from=runs/warmup_synthia

Before it, the warm-up (`configs/warmup_synthia.py`), and the generated images, SAM's weights
and embeddings as the header of `configs/joint_gta.py` has them: they serve every source.

A minute on a laptop, with made-up data:

    python -m clouds_jax.train --config configs/joint_synthia.py:debug --workdir runs/debug

`:paper` and `:fixed` take the settings of the paper's text and of our reading instead of those of
the released code; see `PRESETS` in `configs/base.py`.
"""

from configs import base, warmup_synthia


def get_config(mode: str = ""):
    """The config; mode "debug", "release" (the default), "paper", "fixed"."""
    config = warmup_synthia.get_config()
    return base.joint(config, mode, source="synthia", init_from="runs/warmup_synthia")
