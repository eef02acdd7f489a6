"""The list of sizes and its table; the scores are those of test_evaluation_buckets."""

from experiments import buckets


def test_twenty_nine_sizes_need_at_most_thirteen_programs():
    rows = buckets.rows()
    assert len({row["input"] for row in rows}) == len(rows) == 29
    shorts = [min(row["native"]) for row in rows]
    assert (min(shorts), max(shorts)) == (600, 3936)
    assert max(max(row["input"]) for row in rows) == 2025
    assert len({row["bucket"] for row in rows}) <= 13
    assert all(row["padded"] < 0.25 for row in rows)


def test_the_table_says_that_the_list_is_not_the_real_one():
    rows = buckets.rows()
    errors = {row["bucket"]: (2e-6, 3.0) for row in rows}
    text = buckets.table(rows, errors, 8)
    assert "not the list of Mapillary's validation images" in text
    assert text.count("| 2.0e-06 | 3.00 |") >= len(errors) and text.count("\n| ") == 2 + len(rows)
