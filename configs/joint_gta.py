r"""Joint phase on GTA5 and generated images: CLOUDS, the last row of the paper's Table 1.

    python -m clouds_jax.train --config configs/joint_gta.py --workdir runs/joint_gta \
        --config.init_from=runs/warmup_gta

Before it, the warm-up (`configs/warmup_gta.py`), the generated images as shards, SAM's weights, and
the images' embeddings:

    python -m porting prompts --config configs/stages/paper.py --workdir runs/stages_gta
    python -m porting generate --config configs/stages/paper.py --workdir runs/stages_gta \
        --config.shards=shards
    python -m porting convert mobile_sam.pt --output weights/mobile_sam
    python -m clouds_jax.embed --shards shards --ref generated/train --size 768 768 \
        --sam mobile_sam --weights weights/mobile_sam

With `--config.selftrain.labels=stored` the labels are those that `python -m clouds_jax.pseudo` and
`python -m porting refine` have written (`experiments/pipeline.py` runs all of it).

A minute on a laptop, with made-up data:

    python -m clouds_jax.train --config configs/joint_gta.py:debug --workdir runs/debug

`:paper` and `:fixed` take the settings of the paper's text and of our reading instead of those of
the released code; see `PRESETS` in `configs/base.py`.
"""

from configs import base, warmup_gta


def get_config(mode: str = ""):
    """The config; mode "debug", "release" (the default), "paper", "fixed"."""
    return base.joint(warmup_gta.get_config(), mode, source="gta5", init_from="runs/warmup_gta")
