"""Copy modules of this project, and all that they import of it, into a package of another name.

A registered version carries the code that it was judged with. The name of its package is a
digest of that code: versions of different code load side by side, and none of them is replaced
by a checkout that happens to be on the path.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pipeline
from pipeline.domain import lineage

PACKAGE = "pipeline"
SOURCE = Path(pipeline.__path__[0])
_IMPORT = re.compile(rf"^(\s*(?:from|import) ){PACKAGE}(?=[. ])", re.MULTILINE)


def copy_with_imports(module: str, target: Path) -> str:
    """Copy a module and everything of this project that it imports.

    Args:
        module: dotted name, such as `pipeline.adapters.model.scan_model`.
        target: folder that gets the new package.

    Returns:
        Dotted name of the copied module.
    """
    contents = {name: _path(name).read_bytes() for name in sorted(import_closure(module))}
    package = f"gliaflow_{lineage.digest_of_files(contents)[:12]}"
    for name, content in contents.items():
        path = target / package / _path(name).relative_to(SOURCE)
        path.parent.mkdir(parents=True, exist_ok=True)
        renamed = _IMPORT.sub(rf"\g<1>{package}", content.decode())
        path.write_text(renamed, encoding="utf-8")
    return module.replace(PACKAGE, package, 1)


def import_closure(module: str) -> set[str]:
    """Return a module and all modules of this project that it imports, also indirectly.

    Imports for type checkers alone do not count.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported(ast.parse(_path(name).read_text(encoding="utf-8")))
    return found


def third_party_imports(module: str) -> set[str]:
    """Return the top-level packages that a module imports at run time, of others than Python."""
    names: set[str] = set()
    for node in _runtime_nodes(ast.parse(_path(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
    return names - {PACKAGE} - sys.stdlib_module_names


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the modules of this project that a module imports at run time."""
    for node in _runtime_nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _path(inner).is_file() else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == PACKAGE)


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _runtime_nodes(child)


def _path(module: str) -> Path:
    return SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py")
