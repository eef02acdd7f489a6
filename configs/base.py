"""The defaults: every key once, with where its number comes from.

Numbers marked (paper) are those of CLOUDS' own training; the others are this project's. An
experiment starts from `get_config()` and changes what differs; `finish` answers its mode.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Every key, with the values shared by the experiments on large GPUs."""
    config = ml_collections.ConfigDict()

    config.seed = 0  # of initialisation, augmentation, matching points
    config.steps = 40_000
    # Portions of each batch that are computed one after the other, for one update: less memory,
    # the same numbers.
    config.accumulate = 1
    # Products of float32 numbers: "bfloat16" (what JAX does unasked: TF32 on NVIDIA, one bfloat16
    # pass on TPUs), "tensorfloat32" (TF32; three passes) or "float32" (full; six passes). CPUs
    # always compute in float32. With the default every platform has at least TF32's 10 bits of
    # mantissa, as PyTorch's convolutions have by default (paper: PyTorch's defaults).
    config.matmul_precision = "tensorfloat32"
    config.label_space = "cityscapes19"  # or "camvid11"
    # Continue from the weights of another run (its --workdir) or of a weights folder; the
    # optimizer, the schedule and the step start anew.
    config.init_from = ""

    # weights: a folder made by `python -m porting convert`. "" is allowed in debug mode only:
    # a random frozen encoder teaches nothing.
    # dtype: of the frozen encoder's weights and activations (paper: float32).
    config.encoder = dict(
        name="convnext_large_d_320",
        weights="weights/convnext_large_d_320",
        dtype="float32",
        trainable=False,  # ConvNeXt only (paper: True in one row of Table 5)
        lr_factor=0.1,  # (paper's code) of the learning rate, where it is trained
        drop_path=0.1,  # (paper's code) rate of its stochastic depth there
        # What the gradient of a trained encoder computes again instead of keeping it: "none",
        # "blocks" or "stages". `python -m experiments.benchmark trained` measures all three.
        remat="none",
    )
    config.head = dict(
        name="mask2former",  # or "fpn", the dense baseline
        num_queries=100,  # the eight numbers of Mask2Former (paper)
        dim=256,
        num_heads=8,
        pixel_layers=6,
        pixel_ffn=1024,
        decoder_layers=9,
        decoder_ffn=2048,
        num_points=4,  # of the deformable attention, per level and head
        # of the activations, "float32" (paper) or "bfloat16"; weights, norms, softmax, sampling
        # points and logits are float32 either way
        dtype="float32",
        # of the queries: "linear" (paper), "text" or "pooled"; see nn.mask2former.class_heads.
        # "text" needs the class matrix that `python -m clouds_jax.text` puts beside the weights.
        classifier="linear",
        # Evaluation only: CLIP's own opinion of each mask joins the classifier's. Needs the class
        # matrix too. (paper's code: off, in its first release on)
        ensemble=dict(
            enabled=False,
            alpha=0.4,  # (paper) share of CLIP's vote for classes that were trained
            beta=0.8,  # (paper) and for the others
            valid_masks=False,  # leave CLIP out of empty masks (paper: True for CLIP ResNets)
            trained_space="",  # label space of the training; "": label_space
        ),
    )

    config.data = dict(
        shards="shards",  # folder that clouds_jax.data.build writes to
        batch=dict(),  # dataset -> images per step, over all devices
        split="train",
        crop=(768, 768),  # (h, w) (paper)
        scale=(0.5, 2.0),  # of the scale jitter (paper)
        # (h, w) that scale 1 fits the image into; None: the image's own size. (paper, per source)
        initial_size=None,
        # "diagonal": one random number places both axes of the crop, as detectron2's
        # FixedSizeCrop does (paper); "independent": one for each.
        crop_offsets="diagonal",
        flip=0.5,  # probability (paper)
        colour=True,  # SSD's colour jitter (paper)
        threads=8,  # that read and augment
        buffer=4,  # batches made ahead
    )

    # Generated images of the joint phase. They are made at the size of the crop; others are
    # scaled to cover it and cut in the middle.
    config.data.generated = dict(
        batch=dict(),  # dataset/split -> images per step, over all devices
        limit=0,  # of each dataset the first so many images; 0: all
        flip=0.5,  # probability, the same for student and teacher (paper)
        colour=True,  # the student sees them colour-jittered (paper)
    )

    config.loss = dict(
        cls=2.0,  # (paper) weights of the three terms of every decoder output
        mask=5.0,
        dice=5.0,
        no_object=0.1,  # (paper) weight of the no-object class in the cross-entropy
        num_points=12_544,  # (paper) per mask, in matching and in the losses
        oversample=3.0,  # (paper) candidates per point, of which
        importance=0.75,  # (paper) this share goes to the most uncertain ones
    )

    config.optimizer = dict(
        lr=1e-5,  # (paper)
        weight_decay=0.05,  # (paper) none on norms and query embeddings
        clip_norm=0.01,  # (paper) over all trained weights
        schedule="constant",  # or "poly"
        power=0.9,  # of "poly", which ends at 0
        # (paper) 10 warm-up steps with factor 1.0, which is no warm-up
        lr_warmup_steps=0,
    )

    config.selftrain = dict(
        enabled=False,
        # "online": the teacher's labels, refined by SAM inside the step. "teacher": as they are.
        # "stored": what the shards `NAME.map` beside those of the images hold; `map` is "pseudo" or
        # "refined", or such a name with something behind a hyphen.
        labels="online",
        map="refined",
        teacher=dict(decay=0.999, every=100, warmup=False),  # (paper's code)
        rules=dict(
            min_area=5000,  # components of at most so many pixels are dropped (paper's code)
            num_points=5,  # per component (paper's code)
            # The three keys in which the paper's code ("release"), the paper's text ("paper") and
            # our reading of both ("fixed") differ; see clouds_jax.selftrain.refine_rules.
            overlap="any",  # or "classes"
            emptied="keep",  # or "drop"
            unlabelled="negative",  # or "ignore"
        ),
        components=0,  # most components of an image that are prompted; 0: as many as can be
        chunk=8,  # prompts decoded at once: memory against speed
        # stored: read the images' embeddings that `python -m clouds_jax.embed` has written; False:
        # the step makes them, which costs the time and memory of SAM's image encoder. weights: a
        # folder with converted ones.
        sam=dict(name="mobile_sam", weights="weights/mobile_sam", stored=True),
    )

    config.evals = dict()  # dataset/split -> scored every n steps, and at the end
    config.eval = dict(
        enabled=True,  # False: none of `evals`
        protocol="clouds",  # how images are resized and scored; see clouds_jax.evaluation
        limit=0,  # score the first n images only; 0: all
        panels=6,  # evenly spaced images drawn at every evaluation; 0: no pictures
    )

    config.checkpoint_every = 1_000
    config.keep = 2  # newest checkpoints that stay
    config.keep_best = True  # also the best of each of `evals`; `--step best` reads it
    config.log_every = 50

    # (regular expression on the path in the training state, rule): the first match wins.
    # Rules: "replicate", "fsdp" (split the largest axis over the devices).
    config.sharding = ((r".*", "replicate"),)

    config.tensorboard = True
    config.wandb = dict(project="", name="")  # project "": off

    # Folder of compiled programs; "": off. The environment's CLOUDS_COMPILE_CACHE wins.
    config.compile_cache = "~/.cache/clouds_jax/xla"
    config.profile = dict(first=0, steps=0)  # window written to workdir/profile; steps 0: off
    config.debug = dict(
        # debug mode: random encoder weights are allowed, fake shards are made in the workdir
        enabled=False,
        nans=False,  # stop at the operation that makes the first NaN (slow, on one device)
        compiles=False,  # log every compilation and why it was needed
    )
    return config


# What differs between the paper's code, the paper's text, and our reading of both.
PRESETS = {
    "release": dict(
        rules=dict(overlap="any", emptied="keep", unlabelled="negative"),
        teacher=dict(decay=0.999, every=100, warmup=False),
        sam="mobile_sam",
    ),
    "paper": dict(
        rules=dict(overlap="classes", emptied="keep", unlabelled="ignore"),
        teacher=dict(decay=0.999, every=1, warmup=True),
        sam="sam_vit_h",
    ),
    "fixed": dict(
        rules=dict(overlap="classes", emptied="drop", unlabelled="ignore"),
        teacher=dict(decay=0.999, every=1, warmup=True),
        sam="sam_vit_h",
    ),
}


def selftrain(config: ml_collections.ConfigDict, preset: str) -> ml_collections.ConfigDict:
    """Switches the joint phase on, with the settings of one of `PRESETS`."""
    if preset not in PRESETS:
        raise ValueError(f"{preset!r} is no preset; there are: {', '.join(PRESETS)}.")
    chosen = PRESETS[preset]
    config.selftrain.enabled = True
    config.selftrain.rules.update(chosen["rules"])
    config.selftrain.teacher.update(chosen["teacher"])
    config.selftrain.sam.update(name=chosen["sam"], weights=f"weights/{chosen['sam']}")
    return config


def joint(
    warmup: ml_collections.ConfigDict, mode: str, *, source: str, init_from: str
) -> ml_collections.ConfigDict:
    """The joint phase of the paper behind a warm-up.

    Args:
        warmup: config of the warm-up, which is changed.
        mode: "debug", one of `PRESETS`, or "" for "release".
        source: the labelled dataset.
        init_from: folder of the warm-up's run.
    """
    config = selftrain(warmup, mode if mode in PRESETS else "release")
    config.init_from = init_from
    # of 8 images the paper's sampler draws 2.0 to 2.3 generated ones on average
    config.data.batch = {source: 6}
    config.data.generated.batch = {"generated/train": 2}
    config = finish(config, "" if mode in PRESETS else mode)
    if mode == "debug":
        config.init_from = ""
    return config


def finish(config: ml_collections.ConfigDict, mode: str) -> ml_collections.ConfigDict:
    """Returns the config of `mode`: as it is, or shrunk for "debug"."""
    if mode not in ("", "debug"):
        raise ValueError(f"{mode!r} is no mode of this config; the only one is 'debug'.")
    return shrink(config) if mode == "debug" else config


def shrink(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same experiment, small enough for one CPU core, with random weights and fake data."""
    config.debug.enabled = True
    config.steps = 4
    config.encoder.update(name="convnext_debug", weights="", dtype="float32")
    if config.head.name == "mask2former":
        config.head.update(
            num_queries=21, dim=16, num_heads=2, pixel_layers=1, pixel_ffn=32, decoder_layers=3,
            decoder_ffn=32, num_points=2,
        )  # fmt: skip
    else:
        config.head.update(dim=16)
    # Assigned where keys must go: update() merges nested dicts and would keep the real datasets.
    config.data.batch = dict(fake=2)
    config.data.update(crop=(64, 64), initial_size=None, threads=2, buffer=1, split="train")
    if config.selftrain.enabled:
        config.data.generated.batch = dict(fake=2)
        config.selftrain.rules.update(min_area=40, num_points=3)
        config.selftrain.sam.update(name="sam_debug", weights="")
        config.selftrain.teacher.every = min(config.selftrain.teacher.every, 2)
    config.loss.num_points = 64
    config.evals = {"fake/train": 2}
    config.eval.update(protocol="native", limit=2, panels=2)
    config.checkpoint_every = 2
    config.log_every = 2
    config.tensorboard = False
    return config
