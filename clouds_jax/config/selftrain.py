"""The joint phase of an experiment: the one place that interprets `config.selftrain.labels`."""

from collections.abc import Mapping
from typing import Any

from clouds_jax.data.classes import LabelSpace
from clouds_jax.data.generated import View
from clouds_jax.nn.sam import registry
from clouds_jax.selftrain.joint import SelfTraining
from clouds_jax.selftrain.labels import FromRecords, FromSam, FromTeacher, LabelSource
from clouds_jax.selftrain.refine_rules import RefineRules
from clouds_jax.selftrain.teacher import Average


def read_selftrain(config: Mapping[str, Any]) -> SelfTraining | None:
    """The joint phase of a config, as JSON; None: the run is a warm-up.

    Raises:
        ValueError, KeyError: settings that do not fit each other, by the config's keys.
    """
    settings = config.get("selftrain") or {}
    if not settings.get("enabled", False):
        return None
    if config["head"]["name"] != "mask2former":
        raise ValueError("config.selftrain needs config.head.name = 'mask2former'.")
    debug = config["debug"]["enabled"]
    if not (config["init_from"] or debug):
        raise ValueError(
            "config.init_from is empty, and a teacher with random weights teaches nothing; give"
            " the --workdir of a warm-up run."
        )
    return SelfTraining(
        labels=_label_source(settings, random_sam=debug),
        average=Average(**settings["teacher"]),
    )


def _label_source(settings: Mapping[str, Any], *, random_sam: bool) -> LabelSource:
    rules = RefineRules(**settings["rules"])
    if rules.num_points < 1 or rules.min_area < rules.num_points - 1:
        raise ValueError(
            f"config.selftrain.rules.min_area is {rules.min_area} and num_points"
            f" {rules.num_points}; a component of more than min_area pixels must have num_points of"
            " them, and at least one."
        )
    sam = settings["sam"]
    sources: dict[str, LabelSource] = {
        "teacher": FromTeacher(rules.unlabelled),
        "online": FromSam(
            rules=rules, components=settings["components"] or None, chunk=settings["chunk"],
            sam=sam["name"], stored=sam.get("stored", True), weights=sam["weights"],
        ),
        "stored": FromRecords(settings["map"], rules.unlabelled),
    }  # fmt: skip
    if settings["labels"] not in sources:
        raise ValueError(
            f"config.selftrain.labels is {settings['labels']!r}; allowed are: {', '.join(sources)}."
        )
    source = sources[settings["labels"]]
    if isinstance(source, FromSam):
        registry.get_sam(source.sam)
        if not (source.weights or random_sam):
            raise ValueError(
                "config.selftrain.sam.weights is empty; give the folder that `python -m porting"
                " convert <SAM's file> --output <folder>` made."
            )
    return source


def generated_view(config: Mapping[str, Any], selftrain: SelfTraining, space: LabelSpace) -> View:
    """Fields of generated images that a training step reads, and their augmentation."""
    data, source = config["data"], selftrain.labels
    return View(
        size=tuple(data["crop"]), flip=data["generated"]["flip"],
        colour=data["generated"]["colour"],
        label=source.map if isinstance(source, FromRecords) else "",
        classes=len(space),
        sam=source.sam if isinstance(source, FromSam) and source.stored else "",
        limit=data["generated"].get("limit", 0),
    )  # fmt: skip
