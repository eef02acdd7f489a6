r"""Computes the class embeddings of CLIP's text tower, once, and keeps them beside the weights.

    python -m clouds_jax.text --weights weights/convnext_large_d_320 --space cityscapes19

Every name of every class is embedded in 14 sentences, whose embeddings are normalised, averaged and
normalised again: one row of the class matrix per name. Training and evaluation with the text
classifier or the ensemble look for the file beside the weights of their encoder; if the tower was
converted to another folder, give the encoder's with --output.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clouds_jax import command_line
from clouds_jax.data.classes import SPACES
from clouds_jax.text.class_matrix import make_class_matrix


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clouds_jax.text",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="weights folder with a text tower"
    )
    parser.add_argument("--space", required=True, choices=SPACES, help="label space of the classes")
    parser.add_argument("--output", type=Path, help="folder to write to (default: --weights)")
    parser.add_argument(
        "--activation",
        choices=("gelu", "quick_gelu"),
        help="activation of the tower (default: as converted)",
    )
    parser.add_argument(
        "--vocabulary", type=Path, help="file of CLIP's merges (default: that of open_clip_torch)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = _parser()
    args = parser.parse_args(argv)
    with command_line.one_line_errors("text"):
        path, new = make_class_matrix(
            args.weights,
            args.space,
            output=args.output or args.weights,
            quick_gelu=args.activation and args.activation == "quick_gelu",
            vocabulary=args.vocabulary,
            progress=sys.stderr.isatty(),
        )
    print(f"{'written' if new else 'already there'}: {path}")


if __name__ == "__main__":
    main()
