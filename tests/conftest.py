"""What all tests share: the option that runs the whole of what CI runs a fixed sample of."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    # Ignored where the tests are a shell's background job, and inherited by what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole",
        action="store_true",
        help="run the tests marked `whole` too: the rest of the zoo, long series of kills",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--whole"):
        return
    left = [item for item in items if item.get_closest_marker("whole")]
    if left:
        # Counted in pytest's last line: nothing is skipped unsaid.
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("whole")]
