"""Keeps the reference's runs in a file, so that parity can be checked without PyTorch.

One safetensors file: the arrays of `recordings` under `cases/<i>/...`, random weights under
`weights/<j>/...`, and in the header's metadata a description in JSON with a hash of every array.
The weights of a checkpoint are not kept, only its hash: name the checkpoint again.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from porting.conversion.convert import prepare, versions
from porting.conversion.targets import choose
from porting.files.formats import read_metadata
from porting.files.open import open_checkpoint, tensor_hash
from porting.files.write import write_safetensors
from porting.parity.model_pair import ClassMatrix, Sides, joined
from porting.parity.recordings import CaseRecord, EncoderRecord, HeadOutputs, HeadRecord
from porting.tables import get_table
from porting.tables.rules import apply_rules, plan

_FORMAT = 1  # raised when files of before cannot be read
_KEY = "clouds_jax.parity"
_ENCODER = "encoder/"
_HEAD = "head/"


def write(
    file: Path, runs: Sequence[tuple[Sides, CaseRecord]], *, with_weights: bool, heads: int
) -> None:
    """Writes the runs of one family.

    Args:
        file: .safetensors; appears when it is complete.
        runs: the reference's, each with the models it is of.
        with_weights: keep the weights too, which are in no checkpoint.
        heads: attention heads of a head from a checkpoint.
    """
    arrays: dict[str, np.ndarray] = {}
    cases, weights = [], {}
    for i, (sides, record) in enumerate(runs):
        digest = json.dumps(sides.checkpoint["sha256"])
        if with_weights and digest not in weights:
            weights[digest] = len(weights)
            arrays |= {f"weights/{weights[digest]}/{k}": v for k, v in sides.state.items()}
        matrix = sides.head.matrix if sides.head else None
        kept, described = _flat(record, matrix)
        arrays |= {f"cases/{i}/{name}": array for name, array in kept.items()}
        cases.append(
            {
                "name": record.name,
                "checkpoint": record.checkpoint,
                "size": record.size,
                "weights": weights.get(digest),
                "order": list(sides.state) if with_weights else None,
                "heads": sides.target.head.num_heads if sides.target.head else heads,
                "encoder": sides.target.encoder,
                **described,
            }
        )
    about = {
        "format": _FORMAT,
        "family": runs[0][0].table.name,
        "table_version": runs[0][0].table.version,
        "versions": versions() | _torch_version(),
        "cases": cases,
        "sha256": {name: tensor_hash(array) for name, array in arrays.items()},
    }
    write_safetensors(file, arrays, {_KEY: json.dumps(about)})


def read(file: Path, weights: str | None, dtype: str) -> Iterator[tuple[Sides, CaseRecord]]:
    """The runs of a file with our models, whose weights are those of the reference.

    Args:
        file: what `write` has written.
        weights: the checkpoint the runs were made with; None where they keep random weights.
        dtype: of our encoder.

    Raises:
        ValueError: the file is damaged or of no such kind, or `weights` is another checkpoint.
    """
    metadata = read_metadata(file)
    if _KEY not in metadata:
        raise ValueError(f"{file} holds no runs of a reference; make one with parity --store.")
    about = json.loads(metadata[_KEY])
    if about["format"] != _FORMAT:
        raise ValueError(f"{file} has format {about['format']}, this code reads {_FORMAT}.")
    arrays, _ = open_checkpoint(file)
    wrong = [name for name, digest in about["sha256"].items() if not _holds(arrays, name, digest)]
    if wrong:
        raise ValueError(f"{file} is damaged: {', '.join(wrong[:5])} differ from their hashes.")
    for i, case in enumerate(about["cases"]):
        own = _under(arrays, f"cases/{i}/")
        matrix = None
        if "matrix" in own:
            matrix = ClassMatrix(own["matrix"], tuple(case["counts"]))
        yield _sides(file, about, case, arrays, weights, matrix, dtype), _record(case, own)


def _flat(
    record: CaseRecord, matrix: ClassMatrix | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a run by name, and what JSON keeps of it."""
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
    """The way back of `_flat`."""
    encoder = head = None
    if "steps" in case:
        own = _under(arrays, _ENCODER)
        outputs = _under(own, "outputs/")
        encoder = EncoderRecord(
            images=own["images"],
            outputs={name: outputs[name] for name in case["steps"]},
            taps=case["taps"],
            features=_under(own, "features/"),
            embedding=own.get("embedding"),
        )
    if "layers" in case:
        own = _under(arrays, _HEAD)
        inputs, outputs = _under(own, "inputs/"), _under(own, "outputs/")
        head = HeadRecord(
            features=_under(own, "features/"),
            inputs={name: inputs[name] for name in case["layers"]},
            outputs={name: outputs[name] for name in case["layers"]},
            positions=own["positions"],
            masks=[own[f"masks/{i}"] for i in range(case["masks"])],
            float32=_outputs(_under(own, "float32/")),
            float64=_outputs(_under(own, "float64/")),
        )
    return CaseRecord(case["name"], case["checkpoint"], tuple(case["size"]), encoder, head)


def _outputs(arrays: dict[str, np.ndarray]) -> HeadOutputs:
    levels = _under(arrays, "levels/")
    others = {name: array for name, array in arrays.items() if "/" not in name}
    return HeadOutputs(levels=tuple(levels[str(i)] for i in range(len(levels))), **others)


def _sides(
    file: Path,
    about: Mapping[str, Any],
    case: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    weights: str | None,
    matrix: ClassMatrix | None,
    dtype: str,
) -> Sides:
    """Our models of one run."""
    table = get_table(about["family"])
    if case["weights"] is not None:
        own = _under(arrays, f"weights/{case['weights']}/")
        state = {name: own[name] for name in case["order"]}
        target = choose(state, table, encoder=case["encoder"], heads=case["heads"])
        planned = plan(state, table.rules, target.want)
        tree = apply_rules(state, table.rules, target.want)
    elif weights is None:
        raise ValueError(
            f"{file} was made with {case['checkpoint']['file']} (sha256"
            f" {case['checkpoint']['sha256']}); name it with --weights."
        )
    else:
        made = prepare(table.name, weights, encoder=case["encoder"], heads=case["heads"])
        if made.provenance.sha256 != case["checkpoint"]["sha256"]:
            raise ValueError(
                f"{file} was made with {case['checkpoint']['file']}, sha256"
                f" {case['checkpoint']['sha256']}; {weights} has {made.provenance.sha256}."
            )
        state, target, planned, tree = made.state, made.target, made.plan, made.tree()
    return joined(
        table, target, planned, state, tree, dict(case["checkpoint"]), matrix=matrix, dtype=dtype
    )


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, which is cut off."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _holds(arrays: Mapping[str, np.ndarray], name: str, digest: str) -> bool:
    return name in arrays and tensor_hash(arrays[name]) == digest


def _torch_version() -> dict[str, str]:
    import torch

    return {"torch": torch.__version__}
