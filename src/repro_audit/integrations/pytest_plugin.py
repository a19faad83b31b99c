"""The pytest plugin: a fixture that runs a function twice, and keeps baselines of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from repro_audit.model import Audit

_UPDATE = "--repro-audit-update"
_BASELINES = "repro_audit_baselines"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that writes baselines, and where they are."""
    group = parser.getgroup("repro-audit")
    group.addoption(
        _UPDATE,
        action="store_true",
        help="write the baselines of `reproducible(..., baseline=NAME)` instead of comparing",
    )
    parser.addini(
        _BASELINES,
        "where baselines of repro-audit are, relative to the root directory",
        default="tests/baselines",
    )


@pytest.fixture
def reproducible(request: pytest.FixtureRequest) -> Callable[..., Audit | None]:
    """Calls a function twice from the same seeds, and fails where a tensor differs.

    ```
    def test_training(reproducible):
        reproducible(train)
        reproducible(train, baseline="train")
    ```
    Arguments are those of `repro_audit.check_reproducible`, but that a `baseline` is a name: of
    `NAME.audit` in the directory `repro_audit_baselines` (an ini option; `tests/baselines`), to be
    committed. One that is missing fails the test; `pytest --repro-audit-update` writes it, or
    writes it anew.
    """
    directory = request.config.rootpath / request.config.getini(_BASELINES)

    def check(
        function: Callable[[], object], *, baseline: str | None = None, **options: Any
    ) -> Audit | None:
        from repro_audit import NotReproducibleError, check_reproducible, record_baseline

        path = None if baseline is None else directory / f"{baseline}.audit"
        if path is not None and request.config.getoption(_UPDATE):
            path.parent.mkdir(parents=True, exist_ok=True)
            wanted = {name: options[name] for name in ("seed", "level") if name in options}
            record_baseline(function, path, force=True, **wanted)
            return None
        if path is not None and not path.exists():
            pytest.fail(f"there is no baseline {path}; pytest {_UPDATE} writes it", pytrace=False)
        try:
            return check_reproducible(function, baseline=path, **options)
        except NotReproducibleError as error:
            report = str(error)
        pytest.fail(report, pytrace=False)

    return check
