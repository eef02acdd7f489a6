r"""How many programs an evaluation of many image sizes needs, and what padding costs and changes.

    python -m experiments.buckets
    python -m experiments.buckets --divisor 8 --output /tmp/buckets

For 29 sizes like those of Mapillary's validation images under the protocol "clouds": the size given
to the model, the bucket it is padded to, and the share of padded pixels. Of each bucket, the image
with the most padding is scored by a small model with random weights, alone and padded with noise.
Writes `results.json` and `table.md`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clouds_jax.command_line import one_line_errors
from clouds_jax.evaluation import protocols
from clouds_jax.evaluation.protocols import Size
from clouds_jax.files import write_json, write_text
from clouds_jax.ops.extents import STRIDE
from clouds_jax.provenance import versions
from experiments.run import ROOT

# (h, w). Not the real list, which is not public without the images: sizes of phones, action and
# reflex cameras, videos and crops, as many and within the same bounds (short side 600 to 3936, at
# most 1.98 to 1), each with another size under the protocol.
SIZES: tuple[Size, ...] = (
    (600, 1067), (720, 1280), (1456, 2592), (1520, 2688), (1942, 3840), (1080, 2048), (1952, 3264),
    (1536, 2592), (1200, 1920), (2048, 2560), (2304, 3456), (2848, 4288), (2000, 3008),
    (2448, 2448), (2100, 2400), (2448, 3264), (3448, 4592), (2460, 3284), (3024, 4000),
    (2448, 3246), (2200, 3000), (1700, 2400), (3936, 5240),
    (1920, 1080), (2704, 1520), (3264, 2448), (4608, 3472), (3456, 2304), (3264, 1952),
)  # fmt: skip
_PACKAGES = ("jax", "jaxlib", "flax", "numpy")
_CLASSES = 19


def rows(sizes: Sequence[Size] = SIZES) -> list[dict[str, Any]]:
    """One row per size: what the protocol "clouds" makes of it, and its bucket."""
    found = []
    for size in sizes:
        given = protocols.input_size(size, protocols.get_protocol("clouds"))
        multiple, bucket = _multiple(given), protocols.bucket(given)
        found.append(
            {
                "native": size,
                "input": given,
                "multiple_of_32": multiple,
                "bucket": bucket,
                "padded": 1 - area(multiple) / area(bucket),
            }
        )
    return found


def _multiple(size: Size) -> Size:
    h, w = size
    return h + -h % STRIDE, w + -w % STRIDE


def area(size: Size) -> int:
    """Pixels of a size."""
    return size[0] * size[1]


def worst(found: Sequence[dict[str, Any]]) -> dict[Size, Size]:
    """The input size with the most padding of each bucket."""
    out: dict[Size, Size] = {}
    for row in sorted(found, key=lambda row: -area(row["input"])):
        out[row["bucket"]] = row["input"]
    return out


def differences(found: Sequence[dict[str, Any]], divisor: int) -> dict[Size, tuple[float, float]]:
    """By bucket, the largest difference of the scores of an image alone and padded to the bucket,
    and its largest score.

    Args:
        found: see `rows`.
        divisor: of all sides.
    """
    import jax
    import numpy as np
    from flax import nnx

    from clouds_jax.nn.clouds import HeadSize, build_model
    from clouds_jax.nn.rngs import HostKeys

    head = HeadSize(
        num_queries=20, dim=32, num_heads=4, pixel_layers=2, pixel_ffn=32, decoder_layers=3,
        decoder_ffn=32,
    )  # fmt: skip
    graphdef, state = nnx.split(build_model("convnext_debug", head, _CLASSES, rngs=HostKeys(0)))
    rng = np.random.default_rng(0)
    # Noise on all weights: at their start layer scales and offsets hide what lies beside a pixel.
    state = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(x.dtype), state)
    alone = jax.jit(lambda s, x: nnx.merge(graphdef, s).scores(x))
    padded = jax.jit(lambda s, x, n: nnx.merge(graphdef, s).padded_scores(x, n))
    out: dict[Size, tuple[float, float]] = {}
    for bucket, size in worst(found).items():
        h, w = (max(side // divisor, 1) for side in size)
        small = [-(-side // (32 * divisor)) * 32 for side in bucket]
        image = rng.integers(0, 256, (1, *small, 3), np.uint8)
        got = padded(state, image, np.asarray([(h, w)], np.int32))[:, :h, :w]
        want = alone(state, image[:, :h, :w])
        out[bucket] = float(np.abs(got - want).max()), float(want.max())
        print(f"{h}x{w} in {small[0]}x{small[1]}: {out[bucket][0]:.1e}", flush=True)
    return out


def table(
    found: Sequence[dict[str, Any]], errors: dict[Size, tuple[float, float]], divisor: int
) -> str:
    """Markdown: a row per size; programs and padding before it."""
    head = [
        "native", "input", "multiple of 32", "bucket", "padded", "largest difference",
        "largest score",
    ]  # fmt: skip
    counts = [len({row[key] for row in found}) for key in ("input", "multiple_of_32", "bucket")]
    share = 1 - sum(area(row["multiple_of_32"]) for row in found) / sum(
        area(row["bucket"]) for row in found
    )
    checked, about = worst(found), versions(_PACKAGES)
    lines = [
        f"{len(found)} sizes, height x width, under the protocol `clouds`. This is not the list of"
        " Mapillary's validation images but one made to be like it: sizes of phones, cameras,"
        " videos and crops within the same bounds.",
        f"Programs: {counts[0]} without padding, {counts[1]} for multiples of 32, {counts[2]} with"
        f" buckets. Padding beyond multiples of 32: {100 * share:.1f} % of the pixels, each size"
        " counted once.",
        "Scores of a small ConvNeXt with a small Mask2Former head and random weights: of each"
        " bucket the image with the most padding, which is noise, against the same image alone."
        + (f" All sides are divided by {divisor}." if divisor > 1 else ""),
        f"{', '.join(f'{name} {number}' for name, number in about.items())}; float32.",
        "",
        f"| {' | '.join(head)} |",
        "|" + " ---: |" * len(head),
    ]
    for row in found:
        cells = [_text(row[key]) for key in ("native", "input", "multiple_of_32", "bucket")]
        shown = checked[row["bucket"]] == row["input"]
        error, largest = errors[row["bucket"]]
        cells.append(f"{100 * row['padded']:.1f} %")
        cells += [f"{error:.1e}", f"{largest:.2f}"] if shown else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.buckets", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--divisor", type=int, default=1, help="of the sides that are scored")
    parser.add_argument("--output", type=Path, default=ROOT / "experiments/results/buckets")
    args = parser.parse_args(argv)
    if args.divisor < 1:
        parser.error(f"--divisor={args.divisor} must be at least 1.")
    found = rows()
    errors = differences(found, args.divisor)
    text = table(found, errors, args.divisor)
    write_json(
        args.output / "results.json",
        {
            "versions": versions(_PACKAGES),
            "divisor": args.divisor,
            "rows": found,
            "differences": {_text(bucket): error for bucket, error in errors.items()},
        },
    )
    write_text(args.output / "table.md", text + "\n")
    print(text)


if __name__ == "__main__":
    with one_line_errors("buckets"):
        main()
