"""What a command line can name, and what is said of what it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

from repro_audit.errors import UsageError
from repro_audit.model import Target
from repro_audit.replicate.inputs import InputSpec
from repro_audit.replicate.target import parse_input, parse_target

MODEL = "class Net: pass\ndef build_model(): return Net()\n"
INPUTS = "def build_inputs(): return 1\n"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def refusal(*words: str, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        parse_target(words, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_script_and_its_arguments() -> None:
    write("train.py", "print(1)")
    assert parse_target(["train.py"]) == Target("script", "train.py")
    assert parse_target(["train.py"], args=["--lr", "0.1"]).args == ("--lr", "0.1")


def test_a_script_needs_no_suffix_nor_a_plain_name() -> None:
    assert parse_target([write("a:b", "print(1)")]) == Target("script", "a:b")
    assert parse_target([write("my train", "print(1)")]) == Target("script", "my train")


@pytest.mark.parametrize(
    "source",
    [
        b"# -*- coding: latin-1 -*-\nx = '\xfc'\n",
        b"\xef\xbb\xbfx = 1\n",
        b"x = '\\d'\n",
        b"",
    ],
)
def test_what_python_takes_is_taken_without_a_warning(source: bytes) -> None:
    assert parse_target([write("train.py", source)]).kind == "script"


def test_a_model_file() -> None:
    write("model.py", MODEL + INPUTS)
    assert parse_target(["model.py"]) == Target("model-file", "model.py")
    write("guarded.py", MODEL + INPUTS + "if __name__ == '__main__':\n    print(build_model())\n")
    assert parse_target(["guarded.py"]).kind == "model-file"
    write("imported.py", MODEL + "from data import build_inputs\n")
    assert parse_target(["imported.py"]).kind == "model-file"
    write("starred.py", MODEL + "from data import *\n")
    assert parse_target(["starred.py"]).kind == "model-file"


@pytest.mark.parametrize(
    "rest",
    [
        "model = build_model()\n",
        "def main(): build_model()\nif __name__ == '__main__':\n    main()\n",
        "for _ in range(2):\n    print(build_model())\n",
    ],
)
def test_a_program_that_runs_its_own_build_model_is_a_script(rest: str) -> None:
    assert parse_target([write("train.py", MODEL + rest)]).kind == "script"


@pytest.mark.parametrize(
    "source",
    [
        "def build_model(width): return width\n",
        "class A:\n    def build_model(self): pass\n",
        "def f():\n    def build_model(): pass\n",
        "build_model = 3\n",
    ],
)
def test_what_only_looks_like_a_model_file_is_a_script(source: str) -> None:
    assert parse_target([write("train.py", source)]).kind == "script"


def test_a_model_file_without_inputs_is_told_what_to_do() -> None:
    write("model.py", MODEL)
    message = refusal("model.py")
    assert "no build_inputs()" in message
    assert "repro-audit model.py --input 'float32[8,3,32,32]'" in message
    target = parse_target(["model.py"], inputs=["float32[2,3]"])
    assert target == Target("model-file", "model.py", inputs=("float32[2,3]",))


def test_a_class() -> None:
    write("net.py", "class Net:\n    def __init__(self, width=3): pass\n")
    target = parse_target(["net.py:Net"], inputs=["float32[2,3]", "long[4]<10"])
    assert target == Target("class", "net.py", "Net", (), ("float32[2,3]", "long[4]<10"))
    assert target.label == "net.py:Net"
    write("fed.py", "class Net: pass\n" + INPUTS)
    assert parse_target(["fed.py:Net"]).kind == "class"
    write("guarded.py", "try:\n    class Net: pass\nexcept ImportError: pass\n" + INPUTS)
    assert parse_target(["guarded.py:Net"]).kind == "class"
    write("other.py", "from fed import Net\n" + INPUTS)
    assert parse_target(["other.py:Net"]).kind == "class"


def test_a_class_that_cannot_be_driven() -> None:
    write("net.py", "class Net:\n    def __init__(self, width, *, depth): pass\ndef f(): pass\n")
    assert "arguments: width, depth" in refusal("net.py:Net", inputs=["float32[2]"])
    assert "f is a function, not a class" in refusal("net.py:f", inputs=["float32[2]"])
    assert "Is it net.py:Net?" in refusal("net.py:Nett", inputs=["float32[2]"])
    assert "There are: Net." in refusal("net.py:Transformer", inputs=["float32[2]"])
    assert "is no class name" in refusal("net.py:3")
    write("plain.py", "class Net: pass\n")
    assert "--input 'float32[8,3,32,32]'" in refusal("plain.py:Net")
    write("empty.py", "x = 1\n")
    assert "no class Net at its top level, nor any other" in refusal("empty.py:Net")


def test_a_script_takes_no_inputs() -> None:
    write("train.py", "print(1)")
    assert "train.py:NAME" in refusal("train.py", inputs=["float32[2]"])


def test_a_file_that_is_not_there() -> None:
    write("train.py", "print(1)")
    assert refusal("trian.py") == "trian.py does not exist. Is it train.py?"
    assert "Is it train.py?" in refusal("trian.py:Net")
    assert "Name a Python file" in refusal("nowhere/else.py")
    write("package/train.py", "print(1)")
    assert "repro-audit -m package.train" in refusal("package.train")


def test_a_file_that_is_no_program() -> None:
    Path("folder").mkdir()
    assert "folder is a directory" in refusal("folder")
    assert "nbconvert --to script notes.ipynb" in refusal(write("notes.ipynb", "{}"))
    assert "a binary file" in refusal(write("model.pt", b"\x00\x01\x02"))
    message = refusal(write("latin.py", b"x = '\xfc'\n"))
    assert message.startswith("latin.py")
    assert "utf-8" in message


def test_a_syntax_error_is_shown_with_its_line() -> None:
    message = refusal(write("train.py", "x = 1\nif x:\n    y = = 2\n"))
    assert message.splitlines() == [
        "train.py:3: SyntaxError: invalid syntax",
        "    y = = 2",
        "        ^",
    ]
    assert "train.py:1: SyntaxError: 'return' outside" in refusal(write("train.py", "return 1\n"))
    assert "train.py:2: IndentationError" in refusal(write("train.py", "if 1:\nx\n"))


def test_no_or_several_words() -> None:
    assert "Name one program" in refusal()
    assert "repro-audit train.py -- x y" in refusal("train.py", "x", "y")


def test_a_module_and_a_package() -> None:
    write("package/__init__.py", "raise SystemExit('executed')")
    write("package/train.py", "print(1)")
    write("package/__main__.py", "print(1)")
    target = parse_target([], module="package.train", args=["-v"])
    assert target == Target("module", "package/train.py", "package.train", ("-v",))
    assert target.label == "-m package.train"
    assert parse_target([], module="package").path == "package/__main__.py"
    assert parse_target([], module="json.tool").path.endswith("json/tool.py")


def test_a_module_that_cannot_be_run() -> None:
    write("package/__init__.py", "")
    write("package/broken.py", "x = = 1\n")
    assert "No module named package.none" in refusal(module="package.none")
    assert "No module named nothing.at.all" in refusal(module="nothing.at.all")
    assert "Name a module in it: -m package.NAME" in refusal(module="package")
    assert "package/broken.py:1: SyntaxError" in refusal(module="package.broken")
    assert "Write it with dots: -m package.train" in refusal(module="package/train.py")
    assert "two programs" in refusal("train.py", module="package.broken")
    assert "Drop --input" in refusal(module="package.broken", inputs=["float32[2]"])


def test_nothing_is_imported_to_find_out() -> None:
    write("model.py", MODEL + INPUTS)
    code = (
        "import sys; from repro_audit.replicate.target import parse_target; "
        "parse_target(['model.py']); parse_target([], module='torch.utils.collect_env'); "
        "assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("float32[8,3,32,32]", InputSpec("float32", (8, 3, 32, 32))),
        ("int64[8,128]<1000", InputSpec("int64", (8, 128), 1000)),
        (" torch.half [ 4 , 0 ] ", InputSpec("float16", (4, 0))),
        ("long[2] < 5", InputSpec("int64", (2,), 5)),
        ("uint8[3]<256", InputSpec("uint8", (3,), 256)),
        ("bool[2,2]", InputSpec("bool", (2, 2))),
        ("complex64[]", InputSpec("complex64", ())),
    ],
)
def test_inputs(text: str, expected: InputSpec) -> None:
    assert parse_input(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8,3,32,32", "Write it as 'float32[8,3,32,32]'"),
        ("float32[8,]", "sizes with commas"),
        ("float32[8 3]", "sizes with commas"),
        ("float32[-1]", "Write it as"),
        ("float32[2]<5", "Drop it"),
        ("float8[2]", "There are: float16"),
        ("int64[2]", "'int64[2]<1000'"),
        ("int8[2]<129", "from 1 to 128"),
        ("int64[2]<0", "from 1 to"),
    ],
)
def test_inputs_that_are_not_understood(text: str, said: str) -> None:
    with pytest.raises(UsageError, match="--input") as caught:
        parse_input(text)
    assert said in str(caught.value)


def test_inputs_are_checked_with_the_target() -> None:
    write("net.py", "class Net: pass\n")
    assert "not understood" in refusal("net.py:Net", inputs=["float32"])
