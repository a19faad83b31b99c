"""Model files and module classes, judged by their source alone."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Sequence

from repro_audit.errors import UsageError

_BUILDER = "build_model"
_INPUTS = "build_inputs"
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_model_file(tree: ast.Module, inputs: Sequence[str]) -> bool:
    """True if the file defines a `build_model()` without required arguments, for us to call.

    A program that calls its own `build_model()` at its top level, or has an
    `if __name__ == "__main__"`, is a script, unless inputs are given or built for it.
    """
    builder = _definitions(tree).get(_BUILDER)
    if not isinstance(builder, _Function) or _required(builder):
        return False
    if inputs or _INPUTS in _definitions(tree):
        return True
    return not any(_is_guard(node) or _calls_builder(node) for node in tree.body)


def check_inputs(tree: ast.Module, path: str, inputs: Sequence[str]) -> None:
    """Raise UsageError unless a model file can be fed."""
    if not inputs and not _binds(tree, _INPUTS):
        raise UsageError(
            f"{path} defines {_BUILDER}() but no {_INPUTS}(), so its model has nothing to run on. "
            f"Define {_INPUTS}(), or describe them: repro-audit {path} "
            "--input 'float32[8,3,32,32]'"
        )


def check_class(tree: ast.Module, path: str, name: str, inputs: Sequence[str]) -> None:
    """Raise UsageError unless `name` is a class that can be made without arguments and be fed."""
    definition = _definitions(tree).get(name)
    if definition is None and not _binds(tree, name):
        raise UsageError(_no_class(tree, path, name))
    if isinstance(definition, _Function):
        raise UsageError(
            f"{path}:{name} is a function, not a class. "
            f"Call it {_BUILDER} and audit the file: repro-audit {path}"
        )
    if isinstance(definition, ast.ClassDef) and (missing := _constructor_needs(definition)):
        raise UsageError(
            f"{name}() cannot be made without its arguments: {', '.join(missing)}. "
            f"Make it in a function {_BUILDER}() of {path}, and audit that: repro-audit {path}"
        )
    if not inputs and not _binds(tree, _INPUTS):
        raise UsageError(
            f"{path}:{name} has nothing to run on. Describe its inputs: repro-audit {path}:{name} "
            "--input 'float32[8,3,32,32]'"
        )


def _no_class(tree: ast.Module, path: str, name: str) -> str:
    classes = [node.name for node in _statements(tree) if isinstance(node, ast.ClassDef)]
    if not classes:
        return f"{path} defines no class {name} at its top level, nor any other. Name its file."
    near = difflib.get_close_matches(name, classes, n=1, cutoff=0.4)
    if near:
        return f"{path} defines no class {name} at its top level. Is it {path}:{near[0]}?"
    return f"{path} defines no class {name} at its top level. There are: {', '.join(classes)}."


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Top-level statements, and those under a top-level `if`, `try` or `with`."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop(0)
        yield node
        for field in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.TryStar | ast.With):
                todo += getattr(node, field, [])
        if isinstance(node, ast.Try | ast.TryStar):
            todo += [inner for handler in node.handlers for inner in handler.body]


def _definitions(tree: ast.Module) -> dict[str, _Function | ast.ClassDef]:
    return {
        node.name: node
        for node in _statements(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }


def _binds(tree: ast.Module, name: str) -> bool:
    """True if the module's top level gives `name` a value, or may: `from x import *`."""
    names = set(_definitions(tree))
    for node in _statements(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                leaf.id
                for target in targets
                for leaf in ast.walk(target)
                if isinstance(leaf, ast.Name)
            }
    return name in names or "*" in names


def _required(function: _Function) -> list[str]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    needed = positional[: len(positional) - len(arguments.defaults)]
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    needed += [argument for argument, default in keywords if default is None]
    return [argument.arg for argument in needed]


def _constructor_needs(definition: ast.ClassDef) -> list[str]:
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _required(node)[1:]
    return []


def _is_guard(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If):
        return False
    words = {leaf.id for leaf in ast.walk(node.test) if isinstance(leaf, ast.Name)}
    texts = {leaf.value for leaf in ast.walk(node.test) if isinstance(leaf, ast.Constant)}
    return "__name__" in words and "__main__" in texts


def _calls_builder(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    return any(
        isinstance(leaf, ast.Call) and isinstance(leaf.func, ast.Name) and leaf.func.id == _BUILDER
        for leaf in ast.walk(node)
    )
