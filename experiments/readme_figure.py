r"""The figure of the front page: drawn streets with labels, real photos with predicted masks.

    python -m experiments.readme_figure --model demo_out/run --photos 0041.jpg 0049.jpg \
        --scenes 0 1 --credit "Drive.ai Sample Dataset, CC BY 4.0"

`--model` is a run or weights folder, best one trained on drawn streets alone, such as the run of
`experiments/demo.sh`. `--scenes` are numbers of scenes of the training split of `--domain`; they
are drawn at the size of the photos.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

import clouds_jax
from clouds_jax import command_line
from clouds_jax.files import written_whole
from clouds_jax.streets import DOMAINS, render
from clouds_jax.visual import labels

Picture = UInt8[np.ndarray, "h w 3"]

OUTPUT = Path("experiments/results/readme_figure/figure.jpg")
TITLES = ("drawn street (training)", "label", "real photo", "prediction")
_WIDTH = 340  # of one picture, in pixels
_QUALITY = 88  # of the JPEG
_TRAINING = 0  # seed of the scenes of the training split


def figure(
    model: clouds_jax.Model,
    domain: str,
    scenes: Sequence[int],
    photos: Sequence[Path],
    *,
    credit: str = "",
) -> Picture:
    """A row per photo: a drawn street, its label, the photo, its prediction.

    Args:
        model: of the 19 Cityscapes classes.
        domain: key of `streets.DOMAINS`.
        scenes: numbers of scenes, as many as photos.
        photos: image files.
        credit: source and licence of the photos.

    Raises:
        ValueError: there are not as many scenes as photos.
    """
    if len(scenes) != len(photos):
        raise ValueError(f"{len(scenes)} scenes and {len(photos)} photos; name as many of both.")
    space = model.config.space
    rows, captions, seen = [], [], set()
    for scene, photo in zip(scenes, photos, strict=True):
        result = model.predict(photo)
        image, label = render(domain, _TRAINING, scene, result.label.shape)
        predicted = labels.overlay(result.image, result.label, space)
        rows.append([image, labels.colourise(label, space), result.image, predicted])
        captions.append(f"{domain}, scene {scene}; photo {photo.name}, {credit}".removesuffix(", "))
        seen |= {*np.unique(label).tolist(), *np.unique(result.label).tolist()}
    foot = labels.legend(seen, space, labels.panels_width(len(TITLES), _WIDTH))
    return labels.panels(rows, titles=TITLES, captions=captions, foot=foot, width=_WIDTH)


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.readme_figure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="run or weights folder")
    parser.add_argument("--step", type=int, help="checkpoint of the run (default: the newest)")
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="image files")
    parser.add_argument("--domain", choices=DOMAINS, default="oldtown-day", metavar="DOMAIN")
    parser.add_argument("--scenes", type=int, nargs="+", required=True, help="one per photo")
    parser.add_argument("--credit", default="", help="source and licence of the photos")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"JPEG (default: {OUTPUT})")
    args = parser.parse_args(argv)
    with command_line.one_line_errors("readme_figure"):
        model = clouds_jax.load(args.model, step=args.step)
        picture = figure(model, args.domain, args.scenes, args.photos, credit=args.credit)
        with written_whole(args.output) as temporary:
            Image.fromarray(picture).save(temporary, format="JPEG", quality=_QUALITY)
    print(f"{args.output} ({args.output.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
