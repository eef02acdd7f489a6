"""ConvNeXt against open_clip and timm: small, random weights, through the rule tables."""

import pytest

pytest.importorskip("torch")

from porting.parity import report, run

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("family", ["open_clip_convnext", "timm_clip_convnext"])
def test_blocks_features_and_embedding_equal_the_reference(family):
    pair, cases, tolerance = run.run(family, size="tiny", seeds=2)
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    for case in cases:
        names = [tap.name for tap in case.taps if tap.view == "chain"]
        assert names == ["res2", "res3", "res4", "res5", "embedding"]
        assert sum(tap.view == "block" for tap in case.taps) == 1 + 3 + sum((1, 1, 2, 1))


def test_an_imagenet_model_equals_the_reference_without_a_visual_head():
    pair, cases, tolerance = run.run("timm_convnext", size="tiny", seeds=1)
    found = report.to_json(pair, cases, tolerance)
    assert report.good(cases), report.to_markdown(found, cases)
    assert pair.encoder.jax.visual_head is None
    assert {rule.why for rule in pair.conversion.plan.dropped.values()} == {
        "the norm and classifier of ImageNet come after the last feature"
    }
