"""Imports point one way, and the runtime stays lean. Read from the source, so that no import has to happen for it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

MAY_IMPORT = {
    "engine": ("fusedbert.engine",),
    "export": (
        "fusedbert.export",
        *(
            f"fusedbert.engine.{module}"
            for module in (
                "artifact",
                "artifact.limits",
                "errors",
                "cli",
                "hardware.packages",
                "load",
                "model",
                "scoring",
                "text",
            )
        ),
    ),
    "bench": ("fusedbert.bench", "fusedbert.export", "fusedbert.engine"),
}
RUNTIME = {"numpy", "tokenizers", "onnxruntime", "click", "tqdm"}


def imports(tree, module):
    """Yield (line, absolute dotted name, node) of everything that is imported; of ``from a import b`` that is ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.rsplit(".", node.level)[0] + "." if node.level else ""
            yield from (
                (node.lineno, f"{package}{node.module or ''}.{alias.name}".replace("..", "."), node) for alias in node.names
            )
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called.endswith("import_module") or called == "__import__":
                yield node.lineno, str(node.args[0].value), node


def within(name, allowed):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in allowed)


def wrong_directions(root, stage):
    """List every import between stages that points in the wrong direction, as ``file:line name``."""
    found = []
    for path in sorted((root / stage).rglob("*.py")):
        relative = path.relative_to(root).with_suffix("")
        module = "fusedbert." + ".".join(relative.parts)
        for line, name, _ in imports(ast.parse(path.read_text(encoding="utf-8")), module):
            if within(name, ("fusedbert",)) and not within(name, MAY_IMPORT[stage]):
                found.append(f"{path.relative_to(root).as_posix()}:{line} {name}")
    return found


@pytest.mark.parametrize("stage", sorted(MAY_IMPORT))
def test_imports_point_one_way(repository, stage):
    assert (repository / stage / "__init__.py").exists()
    assert wrong_directions(repository, stage) == []


def test_an_import_in_the_wrong_direction_is_detected(tmp_path):
    folder = tmp_path / "engine" / "cli"
    folder.mkdir(parents=True)
    (folder / "bad.py").write_text(
        "import fusedbert.engine.errors\n"
        "import fusedbert.bench\n"
        "from fusedbert.export import cli\n"
        "def later():\n"
        "    from fusedbert import export\n"
        "    from ...bench import report\n"
        "    importlib.import_module('fusedbert.export.graph')\n"
    )
    assert wrong_directions(tmp_path, "engine") == [
        "engine/cli/bad.py:2 fusedbert.bench",
        "engine/cli/bad.py:3 fusedbert.export.cli",
        "engine/cli/bad.py:5 fusedbert.export",
        "engine/cli/bad.py:6 fusedbert.bench.report",
        "engine/cli/bad.py:7 fusedbert.export.graph",
    ]


def test_the_engine_needs_no_more_than_the_runtime_when_it_is_imported(repository):
    found = set()
    server = repository / "engine" / "server"  # the extra "serve"; its __init__.py, options and batcher need it not
    runtime = [server / "__init__.py", server / "options.py", *(server / "batcher").rglob("*.py")]
    for path in (repository / "engine").rglob("*.py"):
        if path.is_relative_to(server) and path not in runtime:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
            function.body = [ast.Pass()]  # imports inside a function do not count
        guarded = {id(child) for node in ast.walk(tree) if is_type_checking(node) for child in ast.walk(node)}
        for line, name, node in imports(tree, "fusedbert.engine"):
            top = name.split(".")[0]
            if id(node) not in guarded and top not in sys.stdlib_module_names | RUNTIME | {"fusedbert"}:
                found.add(f"{path.name}:{line} {name}")
    assert found == set()


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def test_the_tests_know_all_stages(repository):
    stages = {path.parent.name for path in repository.glob("*/py.typed")}
    assert stages == {*MAY_IMPORT, "models"}
    assert not list((repository / "models").glob("*.py"))[1:], "models is data: one __init__.py and no code"
    assert Path(repository / "models" / "__init__.py").exists()


def packages(repository):
    """Return the packages that the folders hold, by their installed names, and where each one lies."""
    inits = [path for stage in (*MAY_IMPORT, "models") for path in (repository / stage).rglob("__init__.py")]
    folders = [path.parent.relative_to(repository) for path in inits]
    return {"fusedbert." + ".".join(folder.parts): folder for folder in folders}


def test_pyproject_lists_every_package(repository):
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert sorted(settings["packages"]) == sorted(packages(repository)), "a package that is not listed is not in the wheel"
    assert settings["package-dir"] == {f"fusedbert.{stage}": stage for stage in (*MAY_IMPORT, "models")}


def test_every_folder_of_modules_is_a_package(repository):
    folders = {path.parent for stage in MAY_IMPORT for path in (repository / stage).rglob("*.py")}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == set()


def test_type_checkers_find_every_stage_through_a_link(repository):
    links = {path.name: path for path in (repository / ".imports" / "fusedbert").iterdir()}
    assert sorted(links) == sorted((*MAY_IMPORT, "models"))
    if all(path.is_symlink() for path in links.values()):  # a clone on Windows may have plain files in their place
        assert {name: path.resolve() for name, path in links.items()} == {name: repository / name for name in links}
    else:
        assert {path.read_text(encoding="utf-8").strip() for path in links.values()} == {f"../../{name}" for name in links}


def test_imports_are_relative_inside_a_stage_and_absolute_across(repository):
    """Relative imports work without an installation; absolute ones show where a stage uses another."""
    found = [
        f"{path.relative_to(repository).as_posix()}:{node.lineno} {node.module}"
        for stage in MAY_IMPORT
        for path in (repository / stage).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 0 and within(node.module, (f"fusedbert.{stage}",))
    ]
    assert [line for line in found if not line.startswith(SCRIPTS)] == []


# Run as a file by other engines' Pythons, outside its package.
SCRIPTS = ("bench/startup/task.py",)

# Of other packages, or called by them.
FOREIGN_PRIVATE = {"_exit", "_repr_html_", "_attn_implementation"}


def private_names(tree):
    """Yield (line, name) of every private attribute, import and patch that a file uses without defining it."""
    nodes = list(ast.walk(tree))
    stored = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    stored |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined = stored | {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            names = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        else:
            continue
        foreign = FOREIGN_PRIVATE | defined
        yield from ((node.lineno, name) for name in names if re.match(r"_(?!_)", name) and name not in foreign)


def test_no_private_name_is_used_outside_its_file(repository):
    files = [file for folder in (*MAY_IMPORT, "tests", "examples") for file in sorted((repository / folder).rglob("*.py"))]
    assert len(files) > 200
    found = [
        f"{file.relative_to(repository)}:{line} {name}"
        for file in files
        for line, name in private_names(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not found, "\n".join(found)
