"""The post-import hook: once, at the right moment, in any thread, and never silently missed."""

import importlib
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro_audit.control import imports
from repro_audit.control.imports import pending, when_imported
from repro_audit.errors import EXIT_INTERNAL, EXIT_USAGE


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `planted` with a submodule `planted.part`, not imported yet."""
    folder = tmp_path / "planted"
    folder.mkdir()
    (folder / "__init__.py").write_text("done = False\nfrom . import part\ndone = True\n")
    (folder / "part.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "planted"]:
        del sys.modules[name]
    imports._waiting.clear()


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def test_calls_at_once_when_imported_already() -> None:
    seen = []
    when_imported("json", seen.append)
    assert seen == [sys.modules["json"]]


def test_calls_once_after_the_modules_own_code(package: Path) -> None:
    seen = []
    when_imported("planted", lambda module: seen.append(module.done))
    assert pending("planted")
    importlib.import_module("planted.part")
    importlib.import_module("planted")
    assert seen == [True]
    assert not pending("planted")


def test_calls_for_a_submodule_before_its_package_is_done(package: Path) -> None:
    seen = []
    when_imported("planted.part", lambda part: seen.append((part.value, "done" in dir(part))))
    importlib.import_module("planted")
    assert seen == [(7, False)]


def test_calls_in_the_order_of_registration(package: Path) -> None:
    seen: list[int] = []
    for number in range(3):
        when_imported("planted", lambda module, number=number: seen.append(number))
    importlib.import_module("planted")
    assert seen == [0, 1, 2]


def test_leaves_loader_and_spec_as_they_would_be(package: Path) -> None:
    when_imported("planted", lambda module: None)
    module = importlib.import_module("planted")
    assert vars(module.__spec__.loader).keys() == {"name", "path"}
    assert module.__loader__ is module.__spec__.loader
    importlib.reload(module)
    assert module.done


def test_looking_for_a_module_does_not_count_as_importing_it(package: Path) -> None:
    seen = []
    when_imported("planted", seen.append)
    assert importlib.util.find_spec("planted") is not None
    assert not seen
    importlib.import_module("planted")
    assert len(seen) == 1


def test_waits_for_the_import_that_succeeds(package: Path) -> None:
    seen = []
    text = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text("raise ImportError('not now')")
    when_imported("planted", seen.append)
    with pytest.raises(ImportError, match="not now"):
        importlib.import_module("planted")
    assert not seen
    (package / "__init__.py").write_text(text)
    importlib.invalidate_caches()
    importlib.import_module("planted")
    assert len(seen) == 1


def test_threads_that_import_at_once_cause_one_call(package: Path) -> None:
    (package / "__init__.py").write_text("import time\ntime.sleep(0.05)\n")
    seen = []
    after = []
    barrier = threading.Barrier(4)
    when_imported("planted", lambda module: seen.append(threading.get_ident()))

    def work() -> None:
        barrier.wait()
        importlib.import_module("planted")
        after.append(len(seen))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert after == [1, 1, 1, 1]


def test_registering_while_another_thread_imports_waits_for_it(package: Path) -> None:
    (package / "__init__.py").write_text(
        "import time\ndone = False\ntime.sleep(0.3)\ndone = True\n"
    )
    thread = threading.Thread(target=importlib.import_module, args=("planted",))
    thread.start()
    while "planted" not in sys.modules:
        pass
    seen = []
    when_imported("planted", lambda module: seen.append(module.done))
    thread.join()
    assert seen == [True]


def test_a_callback_may_import_and_register(package: Path) -> None:
    seen: list[object] = []

    def callback(module: object) -> None:
        importlib.import_module("planted.part")
        when_imported("planted", seen.append)

    when_imported("planted", callback)
    module = importlib.import_module("planted")
    assert seen == [module]


def test_a_failing_callback_ends_a_program_that_catches_everything(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("")
    done = run(
        """
        from repro_audit.control.imports import when_imported
        def fail(module):
            raise ValueError("no capture")
        when_imported("planted", fail)
        try:
            import planted
        except BaseException:
            pass
        print("went on unobserved")
        """,
        PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]),
    )
    assert done.returncode == EXIT_INTERNAL
    assert done.stdout == ""
    assert "what importing planted was to start has failed" in done.stderr
    assert "ValueError: no capture" in done.stderr


def test_an_error_of_ours_ends_the_program_with_its_code_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("")
    done = run(
        """
        from repro_audit.control.imports import when_imported
        from repro_audit.errors import EngineError
        def fail(module):
            raise EngineError("there is no such engine")
        when_imported("planted", fail)
        import planted
        """,
        PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]),
    )
    assert done.returncode == EXIT_USAGE
    assert "there is no such engine" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fork_is_told_only_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("")
    done = run(
        """
        import os
        from repro_audit.control.imports import when_imported
        when_imported("planted", lambda module: print("capture"))
        when_imported("planted", lambda module: print("seeds"), in_forks=True)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        else:
            import planted
        """,
        PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]),
    )
    assert (done.stdout, done.stderr) == ("seeds\n", "")


@pytest.mark.parametrize("statement", ["import torch", "import torch.nn", "from torch import nn"])
def test_torch_itself(statement: str) -> None:
    done = run(
        f"""
        import sys
        from repro_audit.control.imports import when_imported
        seen = []
        when_imported("torch", lambda torch: seen.append(torch.zeros(1).sum().item()))
        when_imported("numpy", lambda numpy: seen.append(numpy.__name__))
        assert "torch" not in sys.modules and "numpy" not in sys.modules
        {statement}
        assert seen == ["numpy", 0.0], seen
        import torch, importlib.machinery as machinery
        assert type(torch.__spec__.loader) is machinery.SourceFileLoader
        assert "exec_module" not in vars(torch.__spec__.loader)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
