"""How values are said."""

from __future__ import annotations

import pytest

from repro_audit.report import phrases


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ("aten.add.Tensor", "aten.add"),
        ("aten.index_put.default", "aten.index_put"),
        ("aten.index_put_", "aten.index_put_"),
        ("mylib.op.out", "mylib.op"),
        ("param:layers.0.weight", "layers.0.weight"),
        ("seed:numpy.random.seed", "numpy.random.seed"),
        ("inputs:Net", "inputs of Net"),
        ("torch.from_numpy", "torch.from_numpy"),
        ("torch.utils.data", "torch.utils.data"),
        ("\x1b[31m", "\\x1b[31m"),
    ],
)
def test_op_name(op: str, said: str) -> None:
    assert phrases.op_name(op) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (65536, "65,536"), (10**9 - 1, "999,999,999"), (2**63, "9.2e18"), (-5, "-5")],
)
def test_number(value: int, said: str) -> None:
    assert phrases.number(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2.4e-7, "2.4e-7"),
        (2e-10, "2e-10"),
        (0.5, "0.5"),
        (1.0, "1"),
        (3e5, "3e5"),
        (1e300, "1e300"),
    ],
)
def test_short(value: float, said: str) -> None:
    assert phrases.short(value) == said


def test_ordinals_and_lists() -> None:
    said = [phrases.ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 111, 1002)]
    assert said == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "111th", "1,002nd"]
    assert phrases.listing(["a"]) == "a"
    assert phrases.listing(["a", "b", "c"]) == "a, b and c"


def test_missed_is_a_bound_over_all_distributions_of_outcomes() -> None:
    """Two outcomes, one rare one, many rare ones: none is missed more often than is said."""
    assert phrases.missed(2) == pytest.approx(0.75)
    one = (1 + 0.5**0.5) / 2
    assert one**2 + (1 - one) ** 2 == pytest.approx(0.75)
    common = 0.75**0.5
    for runs in range(2, 20):
        two_outcomes = one**runs + (1 - one) ** runs
        many_outcomes = common**runs
        assert max(two_outcomes, many_outcomes) <= phrases.missed(runs) + 1e-12
