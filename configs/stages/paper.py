r"""The offline stages with the paper's models and numbers; needs GPUs and the hub.

    python -m experiments.pipeline --config configs/stages/paper.py --workdir runs/stages_gta

Llama-2-70b-chat writes 100 prompts, Stable Diffusion 2 draws 5,000 images of 768x768, a warm-up on
GTA5 labels them, MobileSAM refines the labels as in the public code. Before it:

    python -m clouds_jax.data.build gta5 --raw /data/gta5 --split train \
        --output runs/stages_gta/shards
    wget https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt

The gated Llama needs `huggingface-cli login`. `:paper` refines by the text of the paper instead,
with SAM ViT-H (sam_vit_h_4b8939.pth); `:fixed` by our reading of both. `:sdxl`, `:sd3` and `:flux`
draw with a newer model, at its own size; the images are then scaled to 768x768.
"""

from configs.stages import base

_PRESETS = ("release", "paper", "fixed")


def get_config(mode: str = ""):
    """The config; mode "release" (the default), "paper", "fixed", a generator, or "debug"."""
    config = base.get_config()
    if mode in base.GENERATORS:
        base.generator(config, mode)
        mode = ""
    preset = mode if mode in _PRESETS else "release"
    config.refine.preset = preset
    if preset == "paper":
        config.refine.update(sam="sam_vit_h", weights="sam_vit_h_4b8939.pth")
    return base.finish(config, "" if mode in _PRESETS else mode)
