"""Every determinism switch is on afterwards, and the older settings can still be read."""

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

_SWITCHED = """
    import json, torch
    from repro_audit.control.settings import torch_settings
    from repro_audit.control.switches import apply_deterministic
    before = torch_settings(torch)
    apply_deterministic(torch)
    after = torch_settings(torch)
    with torch.backends.cudnn.flags(enabled=False):
        pass
    x = torch.zeros(3)
    x.index_put_((torch.tensor([0, 0]),), torch.ones(2), accumulate=True)
    filled = bool(torch.empty(64).isnan().all())
    print(json.dumps([before, after, filled]))
"""


@pytest.fixture(scope="module")
def switched() -> tuple[dict[str, Any], dict[str, Any], bool]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(_SWITCHED)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    before, after, filled = json.loads(done.stdout)
    return before, after, filled


def test_the_switches_are_on(switched: tuple[dict[str, Any], dict[str, Any], bool]) -> None:
    before, after, filled = switched
    on = ("are_deterministic_algorithms_enabled", "backends.cudnn.deterministic")
    assert [before[name] for name in on] == [False, False]
    assert [after[name] for name in on] == [True, True]
    assert after["is_deterministic_algorithms_warn_only_enabled"] is True
    assert filled
    assert before["backends.cudnn.conv.fp32_precision"] == "tf32"
    precision = {value for name, value in after.items() if name.endswith("fp32_precision")}
    assert precision == {"ieee"}
    assert not any(value for name, value in after.items() if ".cuda.matmul.allow_" in name)
    assert after["get_float32_matmul_precision"] == "highest"


def test_no_setting_becomes_unreadable(
    switched: tuple[dict[str, Any], dict[str, Any], bool],
) -> None:
    _, after, _ = switched
    assert after["backends.cudnn.allow_tf32"] is False
    assert after["backends.cuda.matmul.allow_tf32"] is False
    assert not [name for name, value in after.items() if str(value).startswith("unreadable")]
