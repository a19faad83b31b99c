"""Pins hold, whatever the program sets afterwards; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import get_args

import pytest

from repro_audit.control.pins import BY_NAME, PINS, POISON, pinned
from repro_audit.model import CauseClass


def printed(name: str, program: str, *, first: bool) -> str:
    """What a program prints with a pin held; with `first` before, and a line between."""
    text = f"""
import torch
from repro_audit.control import pins
program = {textwrap.dedent(program)!r}
if {first}:
    exec(program)
    print("held:")
pins.hold(({name!r},), torch)
exec(program)
"""
    done = subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "program", "said"),
    [
        (
            "deterministic",
            """
            torch.use_deterministic_algorithms(False)
            print(torch.are_deterministic_algorithms_enabled())
            print(torch.utils.deterministic.fill_uninitialized_memory)
            """,
            "True\nFalse",
        ),
        ("one-thread", "torch.set_num_threads(2); print(torch.get_num_threads())", "1"),
        (
            "no-cudnn-benchmark",
            "torch.backends.cudnn.benchmark = True; print(torch.backends.cudnn.benchmark)",
            "False",
        ),
        (
            "cudnn-deterministic",
            "torch.backends.cudnn.deterministic = False; print(torch.backends.cudnn.deterministic)",
            "True",
        ),
        (
            "no-tf32",
            """
            torch.backends.cuda.matmul.fp32_precision = "tf32"
            torch.backends.cudnn.allow_tf32 = True
            torch.set_float32_matmul_precision("high")
            print(torch.backends.cuda.matmul.fp32_precision)
            """,
            "ieee",
        ),
        (
            "no-reduced-precision",
            """
            matmul = torch.backends.cuda.matmul
            matmul.allow_bf16_reduced_precision_reduction = True
            matmul.allow_fp16_reduced_precision_reduction = True
            print(matmul.allow_bf16_reduced_precision_reduction)
            print(matmul.allow_fp16_reduced_precision_reduction)
            """,
            "False\nFalse",
        ),
        (
            "math-attention",
            """
            torch.backends.cuda.enable_flash_sdp(True)
            print(torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled())
            """,
            "False True",
        ),
        (
            "loader-order",
            """
            from torch.utils.data import DataLoader
            print(DataLoader([1, 2], in_order=False).in_order)
            """,
            "True",
        ),
        (
            "threads-in-turn",
            """
            import threading, time
            from concurrent.futures import ThreadPoolExecutor
            found = []
            def work(k):
                time.sleep(0.1 * (3 - k))
                found.append(k)
            threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
            for thread in threads: thread.start()
            with ThreadPoolExecutor(3) as pool: pool.map(work, range(3))
            for thread in threads: thread.join()
            print(found)
            """,
            "[0, 1, 2, 0, 1, 2]",
        ),
    ],
)
def test_a_pin_holds(name: str, program: str, said: str) -> None:
    plain, _, held = printed(name, program, first=True).partition("\nheld:\n")
    assert held == said
    assert plain != said, "it would be so without the pin"


def test_a_thread_that_waits_for_the_main_one_does_not_hang() -> None:
    program = """
        import queue, threading
        asked = queue.Queue()
        thread = threading.Thread(target=lambda: print(asked.get()))
        thread.start()
        asked.put("done")
        thread.join()
    """
    assert printed("threads-in-turn", program, first=False) == "done"


def test_what_a_plan_needs() -> None:
    assert pinned(("one-thread",)) == {"pins": ("one-thread",)}
    assert pinned(("filled-memory", "hash-seed")) == {
        "pins": ("filled-memory", "hash-seed"),
        "poison": POISON,
        "hash_seed": 0,
    }
    assert len(BY_NAME) == len(PINS)


def test_addresses_are_the_same_in_every_run() -> None:
    text = """
        import sys
        from repro_audit.control.pins import without_address_randomisation
        without_address_randomisation()
        print(id(object()), *sys.argv[1:])
    """
    command = [sys.executable, "-c", textwrap.dedent(text), "word"]
    found = {
        subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        ).stdout
        for _ in range(4)
    }
    assert len(found) == 1
    assert found.pop().endswith(" word\n")


def test_the_catalogue_has_every_condition_and_class() -> None:
    text = (Path(__file__).parents[2] / "docs" / "causes.md").read_text("utf-8")
    conditions, classes = (
        {
            line.split("|")[1].strip().strip("`"): line
            for line in text.partition(f"## The {title}")[2].partition("\n## ")[0].splitlines()
            if line.startswith("| `")
        }
        for title in ("conditions", "classes")
    )
    assert [*conditions] == [pin.name for pin in PINS]
    assert {name for line in classes for name in line.split("`, `")} == {*get_args(CauseClass)}
    for pin in PINS:
        assert pin.said in conditions[pin.name]
        assert f"*{pin.name}*" in classes[pin.cls]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_loaders_workers_take_the_threads_that_they_ask_for(tmp_path: Path, start: str) -> None:
    # Two threads are at work when the workers begin: a fork that does not go down to one hangs.
    program = tmp_path / "loading.py"
    program.write_text(
        f"""
import torch
from torch.utils.data import DataLoader, Dataset
from repro_audit.control import axes

class Data(Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, i):
        return float(torch.ones(1000, 1000).sum()), torch.get_num_threads()

axes.hold(("threads=2",), torch)
if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.ones(2000, 2000).sum()
    loader = DataLoader(Data(), num_workers=1, multiprocessing_context={start!r})
    print(torch.get_num_threads(), [int(threads) for _, threads in loader])
"""
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "2 [1, 1]"
