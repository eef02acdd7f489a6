"""The Mask2Former head against Hugging Face's: small, random weights, through the rule tables."""

import pytest

pytest.importorskip("torch")

from porting.parity import report, run

pytestmark = pytest.mark.parity
OUTPUTS = 7  # the queries and six layers


# the trunks: stem, downsamplings and blocks of a ConvNeXt; stem and blocks of a ResNet
@pytest.mark.parametrize(
    "family, seeds, trunk",
    [
        pytest.param("mask2former_hf", 2, 1 + 3 + 5, marks=pytest.mark.slow),
        ("mask2former_d2", 1, 1 + 1 + 2 + 3 + 1),
    ],
)
def test_layers_logits_and_scores_equal_the_reference(family, seeds, trunk):
    pair, cases, tolerance = run.run(family, size="tiny", seeds=seeds)
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    for case in cases:
        for view in ("chain", "given masks"):
            names = {tap.name for tap in case.taps if tap.view == view}
            assert names >= {f"class_logits.{o}" for o in range(OUTPUTS)}
            assert names >= {f"mask_logits.{o}" for o in range(OUTPUTS)}
            assert "class_scores" in names
        blocks = [tap for tap in case.taps if tap.view == "block"]
        # deformable layers, fusion, decoder layers, scores
        assert len(blocks) == trunk + 2 + 1 + 6 + 1
        # the masks cut something off and leave something: the comparison is not of open attention
        assert sum(tap.bits or 0 for tap in blocks) > 0
    assert pair.encoder is not None


def test_a_whole_clouds_checkpoint_equals_the_reference():
    pair, cases, tolerance = run.run("clouds", size="tiny", seeds=1)
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    assert cases[0].taps[-1].name == "class_scores of the images"
    assert cases[0].taps[-1].shape == (2, 75, 101, 5)  # padding cut off
    assert {
        "criterion.empty_weight",
        "void_embedding.weight",
    } <= pair.conversion.plan.dropped.keys()
