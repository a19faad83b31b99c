"""Every operator that torch describes, with its gradient: the same bits observed as not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("every_operator.py")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("words", [(), ("--inference",)], ids=["gradients", "inference"])
def test_same_bits(pytestconfig, words):
    most = "10000" if pytestconfig.getoption("--whole") else "4"
    command = [sys.executable, str(PROGRAM), *words, "--most", most]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(printed)
    assert result["operators"] > 900
    assert result["differing"] == []
    assert result["answered"] > 3500
