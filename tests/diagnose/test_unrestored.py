"""What a remedy says of each generator that was not restored."""

from __future__ import annotations

import pytest

from repro_audit.diagnose.unrestored import _remedy
from repro_audit.model import Restored


@pytest.mark.parametrize(
    ("generator", "get", "put"),
    [
        ("torch", "torch.get_rng_state()", "torch.set_rng_state()"),
        ("numpy", "numpy.random.get_state()", "numpy.random.set_state()"),
        ("torch.cuda:1", "torch.cuda.get_rng_state_all()", "torch.cuda.set_rng_state_all()"),
        ("torch.xpu:0", "torch.xpu.get_rng_state_all()", "torch.xpu.set_rng_state_all()"),
        ("torch.mps", "torch.mps.get_rng_state()", "torch.mps.set_rng_state()"),
    ],
)
def test_a_generator_is_saved_by_its_own_functions(generator, get, put):
    item = Restored("generator", generator, compared=1, differing=1)
    assert _remedy(item) == f"save {get}, and give it to {put} when it resumes"
