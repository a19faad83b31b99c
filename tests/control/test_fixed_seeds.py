"""Every generator given a fixed seed, whatever the program gives it; in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = "from repro_audit.control import fixed_seeds; fixed_seeds.install()\n"


def printed(program: str) -> set[str]:
    """What three runs of a program print."""
    command = [sys.executable, "-c", program]
    return {
        subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)
    }


@pytest.mark.parametrize(
    "program",
    [
        "import os; print(os.urandom(8))",
        "import random; print(random.random())",
        "import random; random.seed(); print(random.random())",
        "import random; print(random.Random().random())",
        "import random; print(random.SystemRandom().random())",
        "import secrets; print(secrets.token_hex())",
        "import uuid; print(uuid.uuid4())",
        "import numpy as np; print(np.random.default_rng().random())",
        "import numpy as np; print(np.random.RandomState().rand())",
        "import numpy as np, time; np.random.seed(time.time_ns() % 2**32); print(np.random.rand())",
        "import numpy as np; print(np.random.SeedSequence().entropy)",
        "import torch, time; torch.manual_seed(time.time_ns()); print(torch.rand(1).item())",
        "import torch; print(torch.seed(), torch.rand(1))",
        "import torch; print(torch.rand(1))",
        "import numpy as np; print(np.random.rand())",
    ],
)
def test_all_is_the_same_in_every_run(program: str) -> None:
    assert len(printed(START + program)) == 1
    assert len(printed(program)) == 3, "it repeats by itself"


def test_generators_differ_from_each_other() -> None:
    program = "import numpy as np; print(*(np.random.default_rng().random() for _ in range(3)))"
    (said,) = printed(START + program)
    assert len({*said.split()}) == 3


def test_a_generator_handed_in_is_handed_back() -> None:
    program = (
        "import numpy as np; g = np.random.default_rng(3); print(np.random.default_rng(g) is g)"
    )
    assert printed(START + program) == {"True\n"}
