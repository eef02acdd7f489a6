"""The HTML report: complete in itself, and honest about what it was not given."""

import json
import re

import numpy as np
import pytest

from clouds_jax import images
from clouds_jax.data.classes import SPACES
from clouds_jax.evaluation import protocols
from clouds_jax.evaluation import report as results
from clouds_jax.evaluation.metrics import score
from clouds_jax.evaluation.run import Panel, Result
from clouds_jax.visual import labels
from experiments import report

SPACE = SPACES["camvid11"]


@pytest.fixture
def material(tmp_path):
    """A run, its evaluation and its predictions, all of a 20x30 image."""
    run = tmp_path / "a <run>"
    run.mkdir()
    rows = [{"step": s, "loss": 9.0 / s, "time/images_per_s": 4.0} for s in (10, 20)]
    rows.append({"step": 20, "eval/camvid/test/miou": 0.5})
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "encoder": {"name": "efficientnet_lite0", "dtype": "float32"},
        "head": {"name": "fpn", "dim": 16},
        "data": {"batch": {"camvid": 8}, "crop": [352, 480]},
    }
    (run / "config.json").write_text(json.dumps(config))
    label = np.zeros((20, 30), np.uint8)
    label[10:] = 3
    image = labels.colourise(label, SPACE)
    matrix = np.zeros((11, 11), np.int64)
    matrix[0, 0], matrix[3, 3], matrix[3, 0] = 300, 150, 150
    result = Result(
        dataset="camvid/test", protocol=protocols.get_protocol("native"), absent="skipped",
        space=SPACE, scores=score(matrix, "camvid11", "camvid11"), confusion=matrix,
        images={"camvid/x": 0.6}, panels=(Panel("camvid/x", image, label, label, 1.0),),
        seconds=1.0, images_per_second=2.0, programs=1,
    )  # fmt: skip
    results.write_pictures(result, tmp_path / "scores")
    results.write_numbers([result], tmp_path / "scores", {"run": str(run), "step": 20})
    images.write_png(tmp_path / "photos" / "street_overlay.png", image)
    return tmp_path


def make(material, *names):
    flags = {"runs": "a <run>", "evaluations": "scores", "predictions": "photos"}
    arguments = [x for name in names for x in (f"--{name}", str(material / flags[name]))]
    report.main([*arguments, "--output", str(material / "report.html")])
    return (material / "report.html").read_text()


def test_the_page_holds_everything_and_asks_the_network_for_nothing(material):
    text = make(material, "runs", "evaluations", "predictions")
    assert text.count("data:image/") == 4  # curves, panels, confusion matrix, one overlay
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "$" not in re.sub(r"data:image/[^\"]*", "", text)


def test_its_numbers_are_those_of_the_results(material):
    text = make(material, "runs", "evaluations")
    # sky 300 / 450, road 150 / 300
    assert "camvid/test: 58.3 % mIoU" in text
    assert "20 steps of 8 images in 0 min 40 s" in text
    assert "50.0 % mIoU at step 20" in text


def test_names_cannot_break_the_page(material):
    text = make(material, "runs", "evaluations")
    assert "a <run>" not in text and "a &lt;run&gt;" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to report; name --runs"),
        (["--evaluations", "."], "results.json does not exist"),
        (["--predictions", "."], r"has no \*_overlay.png"),
        (["--runs", "."], "metrics.jsonl does not exist"),
    ],
)
def test_missing_material_is_one_clear_error(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        report.main([*arguments, "--output", str(tmp_path / "r.html")])
    assert not (tmp_path / "r.html").exists()
