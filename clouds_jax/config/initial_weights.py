"""Initial weights of a run without checkpoints."""

from pathlib import Path
from typing import Any

from clouds_jax.config.experiment import Experiment
from clouds_jax.selftrain.labels import FromSam
from clouds_jax.training import checkpoint
from clouds_jax.weights import load_weights, merged


def initial_weights(experiment: Experiment) -> dict[str, Any] | None:
    """The weights to start from; None: random ones, in debug mode only.

    The encoder is the converted one of `config.encoder.weights`, and beside it lies the class
    matrix of a model that reads class names; `config.init_from`, a run or a weights folder,
    replaces what it holds of encoder and head.

    Raises:
        ValueError: there are no encoder weights, outside debug mode.
        FileNotFoundError: a folder is not there.
    """
    weights: dict[str, Any] = {}
    folder = experiment.encoder.weights
    if folder:
        weights, _ = load_weights(folder, ("encoder",))
    if experiment.run.init_from:
        weights |= _weights_of(Path(experiment.run.init_from))
    if not weights.get("encoder") and not experiment.run.debug:
        raise ValueError(
            "config.encoder.weights is empty, and a frozen encoder with random weights teaches"
            " nothing; make a folder with `python -m porting convert <family> <file> --output"
            " <folder>` (see `python -m porting convert --help`) and give that folder."
        )
    source = experiment.selftrain.labels if experiment.selftrain else None
    if isinstance(source, FromSam) and source.weights:
        tree, _ = load_weights(source.weights, ("sam",))
        weights["sam"] = dict(tree["sam"])
        if source.stored:  # embeddings come with the batch
            weights["sam"].pop("image_encoder", None)
    if folder:
        weights = merged(weights, experiment.model.class_matrices(folder))
    return weights or None


def _weights_of(path: Path) -> dict[str, Any]:
    if (path / "checkpoints").is_dir():
        return checkpoint.load_run(path)[0]
    return load_weights(path, ("encoder", "head"))[0]
