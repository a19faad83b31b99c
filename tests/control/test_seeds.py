"""Seeding: what is imported already, what will be, and nothing imported for it."""

import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import repro_audit
from repro_audit.control.seeds import seed_everything
from repro_audit.errors import UsageError


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()


def test_the_same_seed_gives_the_same_draws() -> None:
    seed_everything(11)
    first = draws()
    seed_everything(12)
    other = draws()
    seed_everything(11)
    assert draws() == first
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_zero_is_the_default_and_the_name_is_public() -> None:
    repro_audit.seed_everything(0)
    first = draws()
    assert repro_audit.seed_everything() is None
    assert draws() == first


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_would_refuse_is_refused_for_all(seed: int) -> None:
    with pytest.raises(UsageError, match="from 0 to 4294967295"):
        seed_everything(seed)


@pytest.mark.parametrize("seed", [np.int64(3), torch.tensor(3)])
def test_a_number_of_another_library_is_a_seed(seed: int) -> None:
    seed_everything(3)
    drawn = draws()
    seed_everything(seed)
    assert draws() == drawn


def test_a_generator_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="'nump' is no generator"):
        seed_everything(1, ("nump",))


def test_what_is_imported_later_is_seeded_then_and_not_imported_now() -> None:
    code = """
        import sys
        from repro_audit.control.seeds import seed_everything
        seed_everything(5)
        assert "torch" not in sys.modules and "numpy" not in sys.modules
        import torch, random
        assert "numpy.random" not in sys.modules
        import numpy
        print(random.random(), numpy.random.rand(), torch.rand(1).item())
        """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seed_everything(5)
    assert done.stdout.split() == [str(value) for value in draws()]
