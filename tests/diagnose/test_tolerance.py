"""What rounding explains, against what rounding does."""

from __future__ import annotations

import numpy as np
import pytest

from repro_audit.diagnose.tolerance import expected


def test_the_coarser_dtype_counts() -> None:
    assert expected(1, ("float32", "bfloat16")) == expected(1, ("bfloat16", "bfloat16"))
    assert expected(1, ("float64", "float32")) == expected(1, ("float32", "float32"))


def test_integers_are_equal_or_not() -> None:
    assert expected(100, ("int64", "int64")) is None


@pytest.mark.parametrize("length", [1, 16, 256, 4096])
def test_sums_in_another_order_stay_within(length: int) -> None:
    rng = np.random.default_rng(length)
    limit = expected(length, ("float32", "float32"))
    assert limit is not None
    for _ in range(20):
        x = rng.random((64, length), dtype=np.float32)
        order = rng.permutation(length)
        one = np.add.accumulate(x, axis=1, dtype=np.float32)[:, -1]
        other = np.add.accumulate(x[:, order], axis=1, dtype=np.float32)[:, -1]
        apart = np.linalg.norm(one.astype(np.float64) - other) / np.linalg.norm(one)
        assert apart < limit


def test_a_product_in_half_precision_does_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 256), dtype=np.float32)
    y = rng.standard_normal((256, 64), dtype=np.float32)
    one = x @ y
    other = (x.astype(np.float16) @ y.astype(np.float16)).astype(np.float64)
    limit = expected(256, ("float32", "float32"))
    assert limit is not None
    assert np.linalg.norm(one - other) / np.linalg.norm(one) > limit
