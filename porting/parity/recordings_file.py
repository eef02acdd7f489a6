"""Stores recorded runs in a file, so that parity can be checked without PyTorch.

One safetensors file: the arrays of `recordings` under `cases/<i>/...`, random weights under
`weights/<j>/...`, and in the header's metadata a description in JSON with a hash of every array.
The weights of a checkpoint are not stored, only its hash: name the checkpoint again.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from porting.conversion.conversion import Conversion, match, versions
from porting.conversion.convert import prepare
from porting.files.formats import read_metadata
from porting.files.open import (
    EVERYTHING,
    Provenance,
    Selection,
    open_checkpoint,
    tensor_hash,
)
from porting.files.write import write_safetensors
from porting.parity.model_pair import ClassMatrix, ModelPair, build_pair
from porting.parity.recordings import CaseRecord, EncoderRecord, HeadOutputs, HeadRecord
from porting.tables import get_table

_FORMAT = 1  # raised when older files cannot be read
_KEY = "clouds_jax.parity"
_ENCODER = "encoder/"
_HEAD = "head/"


def write(
    file: Path, runs: Sequence[tuple[ModelPair, CaseRecord]], *, with_weights: bool, heads: int
) -> None:
    """Writes the recorded runs of one family.

    Args:
        file: .safetensors; appears when it is complete.
        runs: recorded runs, each with its models.
        with_weights: store the weights too, for random ones.
        heads: attention heads of a head from a checkpoint.
    """
    arrays: dict[str, np.ndarray] = {}
    cases, weights = [], {}
    for i, (pair, record) in enumerate(runs):
        state, target = pair.conversion.state, pair.conversion.target
        digest = json.dumps(pair.checkpoint["sha256"])
        if with_weights and digest not in weights:
            weights[digest] = len(weights)
            arrays |= {f"weights/{weights[digest]}/{k}": v for k, v in state.items()}
        own, description = _flatten(record, pair.head.matrix if pair.head else None)
        arrays |= {f"cases/{i}/{name}": array for name, array in own.items()}
        cases.append(
            {
                "name": record.name,
                "checkpoint": record.checkpoint,
                "size": record.size,
                "weights": weights.get(digest),
                "order": list(state) if with_weights else None,
                "heads": target.head.num_heads if target.head else heads,
                "encoder": target.encoder,
                **description,
            }
        )
    table = runs[0][0].conversion.table
    about = {
        "format": _FORMAT,
        "family": table.name,
        "table_version": table.version,
        "versions": versions() | _torch_version(),
        "cases": cases,
        "sha256": {name: tensor_hash(array) for name, array in arrays.items()},
    }
    write_safetensors(file, arrays, {_KEY: json.dumps(about)})


def read(
    file: Path, weights: str | None, dtype: str, selection: Selection = EVERYTHING
) -> Iterator[tuple[ModelPair, CaseRecord]]:
    """Yields the recorded runs of a file, each with JAX models of the same weights.

    Args:
        file: written by `write`.
        weights: checkpoint of the runs; None where the file stores random weights.
        dtype: dtype of the JAX encoder.
        selection: the tensors of `weights` to read.

    Raises:
        ValueError: the file is damaged or of another kind, or `weights` is another checkpoint.
    """
    metadata = read_metadata(file)
    if _KEY not in metadata:
        raise ValueError(f"{file} holds no runs of a reference; make one with parity --store.")
    about = json.loads(metadata[_KEY])
    if about["format"] != _FORMAT:
        raise ValueError(f"{file} has format {about['format']}, this code reads {_FORMAT}.")
    arrays, _ = open_checkpoint(file)
    damaged = [
        name
        for name, digest in about["sha256"].items()
        if name not in arrays or tensor_hash(arrays[name]) != digest
    ]
    if damaged:
        raise ValueError(f"{file} is damaged: {', '.join(damaged[:5])} differ from their hashes.")
    for i, case in enumerate(about["cases"]):
        own = _below(arrays, f"cases/{i}/")
        matrix = None
        if "matrix" in own:
            matrix = ClassMatrix(own["matrix"], tuple(case["counts"]))
        if case["weights"] is None:
            conversion = _of_checkpoint(file, about["family"], case, weights, selection)
        else:
            stored = _below(arrays, f"weights/{case['weights']}/")
            conversion = _of_random(about["family"], case, stored)
        yield build_pair(conversion, matrix=matrix, dtype=dtype), _record(case, own)


def _of_random(
    family: str, case: Mapping[str, Any], weights: Mapping[str, np.ndarray]
) -> Conversion:
    """The conversion of stored random weights."""
    return match(
        {name: weights[name] for name in case["order"]},
        Provenance(**case["checkpoint"]),
        get_table(family),
        encoder=case["encoder"],
        heads=case["heads"],
    )


def _of_checkpoint(
    file: Path,
    family: str,
    case: Mapping[str, Any],
    weights: str | None,
    selection: Selection,
) -> Conversion:
    """The conversion of the checkpoint that the run was recorded with."""
    checkpoint = case["checkpoint"]
    source = f"{file} was made with {checkpoint['file']}"
    if weights is None:
        raise ValueError(f"{source} (sha256 {checkpoint['sha256']}); name it with --weights.")
    conversion = prepare(
        family, weights, encoder=case["encoder"], heads=case["heads"], selection=selection
    )
    digest = conversion.provenance.sha256
    if digest != checkpoint["sha256"]:
        raise ValueError(f"{source}, sha256 {checkpoint['sha256']}; {weights} has {digest}.")
    return conversion


def _flatten(
    record: CaseRecord, matrix: ClassMatrix | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a run by name, and what JSON stores of it."""
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {}
    if record.encoder:
        encoder = record.encoder
        about["steps"], about["taps"] = list(encoder.outputs), encoder.taps
        arrays[_ENCODER + "images"] = encoder.images
        arrays |= {f"{_ENCODER}outputs/{k}": v for k, v in encoder.outputs.items()}
        arrays |= {f"{_ENCODER}features/{k}": v for k, v in encoder.features.items()}
        if encoder.embedding is not None:
            arrays[_ENCODER + "embedding"] = encoder.embedding
    if record.head:
        head = record.head
        about["layers"], about["masks"] = list(head.inputs), len(head.masks)
        arrays[_HEAD + "positions"] = head.positions
        for name in ("features", "inputs", "outputs"):
            arrays |= {f"{_HEAD}{name}/{k}": v for k, v in getattr(head, name).items()}
        arrays |= {f"{_HEAD}masks/{i}": mask for i, mask in enumerate(head.masks)}
        for name in ("float32", "float64"):
            outputs: HeadOutputs = getattr(head, name)
            for field in dataclasses.fields(outputs):
                value = getattr(outputs, field.name)
                if field.name == "levels":
                    arrays |= {f"{_HEAD}{name}/levels/{i}": v for i, v in enumerate(value)}
                else:
                    arrays[f"{_HEAD}{name}/{field.name}"] = value
    if matrix is not None:
        about["counts"] = matrix.counts
        arrays["matrix"] = matrix.rows
    return arrays, about


def _record(case: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> CaseRecord:
    """The inverse of `_flatten`."""
    encoder = head = None
    if "steps" in case:
        own = _below(arrays, _ENCODER)
        outputs = _below(own, "outputs/")
        encoder = EncoderRecord(
            images=own["images"],
            outputs={name: outputs[name] for name in case["steps"]},
            taps=case["taps"],
            features=_below(own, "features/"),
            embedding=own.get("embedding"),
        )
    if "layers" in case:
        own = _below(arrays, _HEAD)
        inputs, outputs = _below(own, "inputs/"), _below(own, "outputs/")
        head = HeadRecord(
            features=_below(own, "features/"),
            inputs={name: inputs[name] for name in case["layers"]},
            outputs={name: outputs[name] for name in case["layers"]},
            positions=own["positions"],
            masks=[own[f"masks/{i}"] for i in range(case["masks"])],
            float32=_outputs(_below(own, "float32/")),
            float64=_outputs(_below(own, "float64/")),
        )
    return CaseRecord(case["name"], case["checkpoint"], tuple(case["size"]), encoder, head)


def _outputs(arrays: dict[str, np.ndarray]) -> HeadOutputs:
    levels = _below(arrays, "levels/")
    others = {name: array for name, array in arrays.items() if "/" not in name}
    return HeadOutputs(levels=tuple(levels[str(i)] for i in range(len(levels))), **others)


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _torch_version() -> dict[str, str]:
    import torch

    return {"torch": torch.__version__}
