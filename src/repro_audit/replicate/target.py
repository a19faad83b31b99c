"""What the user named on the command line, checked before any process is started."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import os
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from repro_audit.errors import UsageError
from repro_audit.model import Target
from repro_audit.replicate import modelfile
from repro_audit.replicate.inputs import parse_input

__all__ = ["parse_input", "parse_target"]


def parse_target(
    words: Sequence[str],
    module: str | None = None,
    inputs: Sequence[str] = (),
    args: Sequence[str] = (),
) -> Target:
    """The target that `words` (one: FILE or FILE:NAME), or `-m module`, names.

    A file with a `build_model()` that it does not itself run is a model file, any other a script.
    `inputs` are `--input` values, `args` the program's own arguments. Nothing is executed and torch
    is not imported. Raises UsageError, saying what to change, where the target is missing,
    unreadable or no Python, or where what it needs to be driven is missing.
    """
    if module is not None:
        return _module(module, words, inputs, args)
    if len(words) != 1:
        raise UsageError(
            "Name one program: repro-audit train.py, or repro-audit -m package.train."
            if not words
            else f"These are several programs: {' '.join(words)}. Put a program's own arguments "
            f"after `--`: repro-audit {words[0]} -- {' '.join(words[1:])}"
        )
    word = words[0]
    path, name = _parted(word)
    tree = _parsed(path)
    if name:
        modelfile.check_class(tree, path, name, inputs)
        return Target("class", path, name, tuple(args), _checked(inputs))
    if modelfile.is_model_file(tree, inputs):
        modelfile.check_inputs(tree, path, inputs)
        return Target("model-file", path, "", tuple(args), _checked(inputs))
    if inputs:
        raise UsageError(
            f"{path} is a script, which makes its own inputs: it defines no build_model(). "
            f"Drop --input, or name a module class: {path}:NAME."
        )
    return Target("script", path, "", tuple(args))


def _checked(inputs: Sequence[str]) -> tuple[str, ...]:
    for text in inputs:
        parse_input(text)
    return tuple(inputs)


def _parted(word: str) -> tuple[str, str]:
    """FILE and NAME of `FILE:NAME`; a file whose own name has a colon is a file."""
    if Path(word).exists():
        return word, ""
    path, colon, name = word.rpartition(":")
    if colon and name.isidentifier() and Path(path).exists():
        return path, name
    if colon and Path(path).is_file():
        raise UsageError(f"{name!r} is no class name. Write {path}:NAME, with a class of {path}.")
    raise UsageError(_not_found(path if colon and name.isidentifier() else word))


def _not_found(word: str) -> str:
    path = Path(word)
    try:
        around = sorted(entry for entry in path.parent.iterdir() if entry.suffix == ".py")
    except OSError:
        around = []
    stems = {entry.stem: entry for entry in around}
    near = difflib.get_close_matches(path.stem, stems, n=1)
    if near:
        return f"{word} does not exist. Is it {stems[near[0]]}?"
    if path.suffix != ".py" and _find_module(word) is not None:
        return f"{word} is no file. To run it as a module: repro-audit -m {word}"
    return f"{word} does not exist. Name a Python file, or a module with -m."


def _parsed(path: str) -> ast.Module:
    """The file's syntax tree, once it is known to compile."""
    file = Path(path)
    if file.is_dir():
        raise UsageError(f"{path} is a directory. Name the Python file in it that is to be run.")
    if not file.is_file():
        raise UsageError(f"{path} is no regular file. Name a Python file.")
    if file.suffix == ".ipynb":
        raise UsageError(
            f"{path} is a notebook. Write it out as a program first: "
            f"jupyter nbconvert --to script {path}"
        )
    try:
        source = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Check its mode.") from error
    if b"\0" in source:
        raise UsageError(f"{path} is a binary file, not Python source. Name a Python file.")
    try:
        with warnings.catch_warnings():
            # The program's own warnings are its own to show, once, when it runs.
            warnings.simplefilter("ignore")
            tree = ast.parse(source, path)
            compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise UsageError(_syntax_error(path, error)) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path} is not Python source: {error}. Name a Python file.") from error
    return tree


def _syntax_error(path: str, error: SyntaxError) -> str:
    place = path if error.lineno is None else f"{path}:{error.lineno}"
    lines = [f"{place}: {type(error).__name__}: {error.msg}"]
    if error.text is not None and error.offset is not None:
        text = error.text.rstrip("\n")
        shown = text.lstrip()
        # offset counts from 1, in characters; 0 means the line as a whole.
        caret = max(error.offset - 1 - (len(text) - len(shown)), 0)
        lines += [f"    {shown}", f"    {' ' * caret}^"]
    return "\n".join(lines)


def _module(name: str, words: Sequence[str], inputs: Sequence[str], args: Sequence[str]) -> Target:
    if words:
        raise UsageError(
            f"-m {name} and {words[0]} are two programs. Put a program's own arguments after "
            f"`--`: repro-audit -m {name} -- {' '.join(words)}"
        )
    if inputs:
        raise UsageError(f"-m {name} makes its own inputs. Drop --input.")
    if not all(part.isidentifier() for part in name.split(".")):
        hint = name.removesuffix(".py").replace("/", ".").strip(".")
        raise UsageError(f"{name!r} is no module name. Write it with dots: -m {hint}")
    spec = _find_module(name)
    if spec is None:
        raise UsageError(
            f"No module named {name} is found. Run from the directory that holds its top package."
        )
    if spec.submodule_search_locations is not None:
        spec = PathFinder.find_spec(f"{name}.__main__", list(spec.submodule_search_locations))
        if spec is None:
            raise UsageError(
                f"{name} is a package without __main__.py, so it cannot be run. "
                f"Name a module in it: -m {name}.NAME"
            )
    path = spec.origin or ""
    if path.endswith(".py"):
        path = _shown(path)
        _parsed(path)
    return Target("module", path, name, tuple(args))


def _find_module(name: str) -> ModuleSpec | None:
    """Where `python -m name` would find it, found without executing its packages."""
    first, *rest = name.split(".")
    if not all(part.isidentifier() for part in (first, *rest)):
        return None
    spec = PathFinder.find_spec(first, [str(Path.cwd())])
    if spec is None:
        try:
            spec = importlib.util.find_spec(first)
        except ValueError:
            return None
    full = first
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        full = f"{full}.{part}"
        spec = PathFinder.find_spec(full, list(spec.submodule_search_locations))
    return spec


def _shown(path: str) -> str:
    """Relative to the current directory where it lies below it."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
