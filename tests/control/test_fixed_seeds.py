"""Every generator given a fixed seed, whatever the program gives it; in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = "from repro_audit.control import fixed_seeds; fixed_seeds.install()\n"
IMPORTS = "import os, random, secrets, time, uuid\nimport numpy as np\nimport torch\n"
DRAWS = (
    "os.urandom(8)",
    "random.random()",
    "(random.seed(), random.random())",
    "random.Random().random()",
    "random.SystemRandom().random()",
    "secrets.token_hex()",
    "uuid.uuid4()",
    "np.random.rand()",
    "np.random.default_rng().random()",
    "np.random.RandomState().rand()",
    "(np.random.seed(time.time_ns() % 2**32), np.random.rand())",
    "np.random.SeedSequence().entropy",
    "torch.rand(1).item()",
    "(torch.manual_seed(time.time_ns()), torch.rand(1).item())[1]",
    "(torch.seed(), torch.rand(1).item())",
)


def run(program: str) -> list[str]:
    """The lines that a program prints."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def drawn() -> list[list[str]]:
    """What each expression gives: twice with fixed seeds, twice without."""
    program = IMPORTS + "".join(f"print({draw})\n" for draw in DRAWS)
    return [run(start + program) for start in (START, START, "", "")]


@pytest.mark.parametrize("draw", DRAWS)
def test_all_is_the_same_in_every_run(drawn: list[list[str]], draw: str) -> None:
    held, again, plain, other = (lines[DRAWS.index(draw)] for lines in drawn)
    assert held == again
    assert plain != other, "it repeats by itself"


def test_generators_differ_from_each_other() -> None:
    program = "import numpy as np; print(*(np.random.default_rng().random() for _ in range(3)))"
    (said,) = run(START + program)
    assert len({*said.split()}) == 3


def test_a_generator_handed_in_is_handed_back() -> None:
    program = "from numpy.random import default_rng; g = default_rng(3); print(default_rng(g) is g)"
    assert run(START + program) == ["True"]
