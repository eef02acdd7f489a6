"""Comparisons find what is wrong, and reports say where."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from porting.parity import report
from porting.parity.case import Case
from porting.parity.tap import compare
from porting.parity.tolerances import Tolerance, get_tolerance

TOLERANCE = Tolerance(op=1e-5, block=1e-5, model=1e-4, agreement=0.995)


def tap(name, error, view="chain", **kwargs):
    theirs = np.random.default_rng(0).normal(size=(2, 5, 7, 3))
    theirs /= theirs.std()
    ours = theirs.copy()
    ours[1, 4, 6, 2] += error
    return compare(name, view, ours, theirs, TOLERANCE, **kwargs)


def test_one_wrong_number_is_enough():
    assert tap("a", 0.9e-4).good
    assert not tap("a", 1.1e-4).good
    assert not tap("a", 0.9e-4, "block").good


def test_nan_is_never_good():
    assert not tap("a", np.nan).good


def test_a_tensor_of_another_shape_is_refused_not_broadcast():
    with pytest.raises(ValueError, match=r"x: ours is \(2, 1\), the reference \(2, 3\)"):
        compare("x", "chain", np.ones((2, 1)), np.ones((2, 3)), TOLERANCE)


def test_a_constant_reference_allows_no_error():
    assert compare("x", "chain", np.ones((2, 3)), np.ones((2, 3)), TOLERANCE).good
    assert not compare("x", "chain", np.ones((2, 3)) + 1e-9, np.ones((2, 3)), TOLERANCE).good


def test_the_verdict_and_the_first_bad_tap():
    good = Case("good", {}, (tap("a", 0), tap("b", 1, judged=False)))
    bad = Case("bad", {}, (tap("a", 0), tap("b", 1), tap("c", 1)))
    assert report.good([good]) and not report.good([good, bad])
    assert good.first_bad is None
    assert bad.first_bad.name == "b"


def ties(differs):
    """Ours and theirs differ in the argmax at one position, where theirs is `differs` ahead."""
    exact = np.random.default_rng(0).normal(size=(2, 6, 7, 5))
    exact[1, 4, 6, :2] = 9, 9 - differs
    theirs, ours = exact.copy(), exact.copy()
    theirs[0, 0, 0, 0] += 1e-6  # the reference's own rounding
    ours[1, 4, 6, :2] = 9, 9 + 1e-6
    return ours, theirs, exact


def test_another_argmax_counts_where_the_reference_is_sure_of_its_own():
    ours, theirs, exact = ties(differs=3e-6)
    tap = compare("masks", "chain", ours, theirs, TOLERANCE, exact=exact)
    assert tap.agreement == tap.decided_agreement == 1 - 1 / 84
    assert tap.undecided == 0 and not tap.good


def test_the_argmax_inside_a_block_is_told_and_not_judged():
    ours, theirs, _ = ties(differs=3e-6)
    tap = compare("x", "block", ours, theirs, TOLERANCE)
    assert tap.agreement == 1 - 1 / 84 and tap.good


def test_another_argmax_within_the_rounding_of_the_reference_is_told_but_no_error():
    ours, theirs, exact = ties(differs=1e-6)
    tap = compare("masks", "chain", ours, theirs, TOLERANCE, exact=exact)
    assert tap.agreement == 1 - 1 / 84 and tap.decided_agreement == 1
    assert tap.undecided == 1 and tap.good
    without = compare("masks", "chain", ours, theirs, TOLERANCE)
    assert without.undecided is None and not without.good


def test_the_bound_is_not_below_a_few_times_the_rounding_of_the_reference():
    exact = np.random.default_rng(0).normal(size=(2, 5, 7, 3))
    theirs, ours = exact.copy(), exact.copy()
    exact[..., 0] += 10
    theirs[..., 0] += 10 + 1e-2
    ours[..., 0] += 10 + 4e-2
    tap = compare("x", "chain", ours, theirs, TOLERANCE, exact=exact)
    assert tap.bound > TOLERANCE.model and tap.good
    assert not compare("x", "chain", ours, theirs, TOLERANCE).good
    assert not compare("x", "chain", ours + 3e-2, theirs, TOLERANCE, exact=exact).good
    wrong = np.roll(ours, 1, axis=-1)
    assert not compare("x", "chain", wrong, theirs, TOLERANCE, exact=exact).good


def test_the_rounding_of_the_reference_is_measured():
    _, theirs, exact = ties(differs=1e-6)
    tap = compare("x", "chain", theirs, theirs, TOLERANCE, exact=exact)
    assert tap.ratio == 0
    np.testing.assert_allclose(tap.reference.ratio, 1e-6 / theirs.std())
    assert tap.reference.agreement == 1


def test_the_report_highlights_the_first_bad_tap(tmp_path):
    case = Case("x", {"file": "f.pth", "sha256": "00"}, (tap("a", 0), tap("b", 1), tap("c", 1)))
    found = {
        "family": "f",
        "verdict": "out of bounds",
        "dtype": "float32",
        "platform": "cpu",
        "matmul_precision": "float32",
        "tolerance": vars(TOLERANCE),
        "target": {},
        "tensors": {"used": 1, "filled": 1, "dropped": {"why": ["n"]}},
        "versions": {"python": "3"},
    }
    markdown = report.to_markdown(found, [case])
    assert "float32 on cpu, products of float32 numbers in float32." in markdown
    assert "**First out of bounds: `b` (chain), 1.0e+00.**" in markdown
    assert "| **`b`** |" in markdown and "| `c` |" in markdown
    report.write(found, markdown, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == found
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["report.json", "report.md"]


def test_an_unknown_device_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="no row for int4 on abacus; it has: bfloat16 on cpu"):
        get_tolerance("int4", "abacus")
