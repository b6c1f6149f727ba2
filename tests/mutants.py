"""Changes the code a little, hundreds of times, and counts which changes no test notices. Run by `make mutants`.

    python tests/mutants.py [--sample 360] [--seed 0] [--only PART_OF_A_PATH] [--seen FILE] [--out FILE]

One run of all the tests under coverage tells which test meets which line. Then each mutant is tried by the tests that
meet its line, the fast ones first, up to --most seconds of them, until one fails; where a fixture meets it, by the
tests of that file. Tests and code are copied before, so both may be edited meanwhile. What a whole run of the tests
would find on top is not counted: the score is the least that holds.
"""

from __future__ import annotations

import argparse
import ast
import collections
import copy
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SUBJECTS = [
    *(f"format/{name}.py" for name in ("tfrecord", "index", "tables")),
    *(f"packing/{name}.py" for name in ("plan", "shard", "pack", "spool")),
    *(f"place/{name}.py" for name in ("local", "lock", "publish")),
    *(f"load/{name}.py" for name in ("store", "loader", "draft", "iteration", "view", "cache")),
    *("order.py", "parallel.py", "splits.py"),
]
# Those that judge the subjects; what they share with others (imaging, sources) is not judged here.
JUDGES = [
    *(
        f"unit/test_{name}.py"
        for name in (
            *("tfrecord", "index", "tables", "plan", "divided", "equal", "spool", "place", "condition", "dataset"),
            *("loader", "adopt", "draft", "iteration", "cache", "order", "parallel", "verify", "catalog", "example"),
            *("sources", "several", "groups"),
        )
    ),
    *(f"property/test_{name}_properties.py" for name in ("adopt", "format", "loader", "order")),
    *("integration/test_pack.py", "integration/test_bad_input.py"),
]
# hypothesis is imported before its plugin is
QUIETLY = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
FIRST = 20
SLOW = 6.0  # seconds from which on a test is left out

Change = Callable[[Any], Any]


def mutant(tree: ast.Module, number: int) -> tuple[int, str, str]:
    """(line, what was done, the code) of a tree with its site `number` changed."""
    tree = copy.deepcopy(tree)
    node, what, change = list(_sites(tree))[number]
    line = node.lineno
    _replace(tree, node, change(node))
    return line, what, ast.unparse(ast.fix_missing_locations(tree))


def _sites(tree: ast.Module) -> Iterator[tuple[Any, str, Change]]:
    """Where something can be changed, in one order always: the node, a name of the change, and the change."""
    for node in _code(tree):
        match node:
            case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
                other = _COMPARISONS[type(op)]
                yield node, f"{type(op).__name__} -> {other.__name__}", _with(ops=[other()])
            case ast.BinOp(op=op) if type(op) in _OPERATORS:
                other = _OPERATORS[type(op)]
                yield node, f"{type(op).__name__} -> {other.__name__}", _with(op=other())
            case ast.AugAssign(op=op) if type(op) in _OPERATORS:
                other = _OPERATORS[type(op)]
                yield node, f"{type(op).__name__}= -> {other.__name__}=", _with(op=other())
            case ast.BoolOp(op=op):
                other = ast.Or if isinstance(op, ast.And) else ast.And
                yield node, f"{type(op).__name__} -> {other.__name__}", _with(op=other())
            case ast.UnaryOp(op=ast.Not()):
                yield node, "not x -> x", lambda node: node.operand
            case ast.UnaryOp(op=ast.USub()):
                yield node, "-x -> x", lambda node: node.operand
            case ast.Constant(value=bool()):
                yield node, f"{node.value} -> {not node.value}", lambda node: ast.Constant(not node.value)
            case ast.Constant(value=int() | float()):
                yield node, f"{node.value} -> {node.value + 1}", lambda node: ast.Constant(node.value + 1)
            case ast.If() | ast.While() | ast.IfExp():
                yield node.test, "condition -> not condition", lambda node: ast.UnaryOp(ast.Not(), node)
            case ast.Return(value=value) if value is not None and not _is_none(value):
                yield node, "return x -> return None", _with(value=ast.Constant(None))
            case ast.Raise():
                yield node, "raise -> pass", lambda node: ast.Pass()
            case ast.Expr(value=ast.Call()):
                yield node, "call -> pass", lambda node: ast.Pass()
            case ast.Break():
                yield node, "break -> continue", lambda node: ast.Continue()
            case ast.Continue():
                yield node, "continue -> break", lambda node: ast.Break()
            case ast.With() if not any(item.optional_vars for item in node.items):
                yield node, "with -> without", lambda node: ast.If(ast.Constant(True), node.body, [])
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg is not None and isinstance(keyword.value, ast.Constant):
                    yield node, f"without {keyword.arg}=", _without(keyword.arg)


_COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(**changes: Any) -> Change:
    def change(node: Any) -> Any:
        for name, value in changes.items():
            setattr(node, name, value)
        return node

    return change


def _without(name: str) -> Change:
    return lambda node: _with(keywords=[keyword for keyword in node.keywords if keyword.arg != name])(node)


def _code(node: ast.AST) -> Iterator[Any]:
    """All nodes that are run, in order: no annotation, no decorator, nothing for type checkers or of a message."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.JoinedStr) or not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            yield from _code(child)


def _replace(tree: ast.Module, old: ast.AST, new: ast.AST) -> None:
    for node in ast.walk(tree):
        for name, value in ast.iter_fields(node):
            if value is old:
                setattr(node, name, new)
                return
            if isinstance(value, list):
                for i, child in enumerate(value):
                    if child is old:
                        value[i] = new
                        return
    raise AssertionError(f"{old} is not in the tree")


class Watch:
    """A pytest plugin: which test meets which line, and how long it takes."""

    def __init__(self, source: Path) -> None:
        import coverage

        self.coverage = coverage.Coverage(data_file=None, source=[str(source)], messages=False)
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        began = _cpu()
        yield
        self.seconds[item.nodeid] = _cpu() - began

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.coverage.switch_context(f"{item.nodeid}|setup")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self.coverage.switch_context(item.nodeid)


def _cpu() -> float:
    """Seconds of the cores that this process and its children have used."""
    return sum(os.times()[:4])


def watched(folder: Path, judges: list[str]) -> dict[str, Any]:
    """Of the unchanged code: the seconds of each test, and by file and line the tests that meet it."""
    watch = Watch(folder / "src" / "headrace")
    watch.coverage.start()
    pytest.main([*QUIETLY, *judges], plugins=[watch])
    watch.coverage.stop()
    data = watch.coverage.get_data()
    lines = {path: data.contexts_by_lineno(str(folder / "src" / "headrace" / path)) for path in SUBJECTS}
    seconds = {test: taken for test, taken in watch.seconds.items() if test not in watch.failed}
    return {"failed": watch.failed, "seconds": seconds, "lines": lines}


def chosen(path: str, line: int, seen: dict[str, Any], most: float) -> list[str]:
    """The tests for a mutant of this line, in the order they are run."""
    seconds, contexts = seen["seconds"], seen["lines"][path].get(str(line), [])
    direct = {context for context in contexts if context in seconds}
    files = {context.split("::")[0] for context in contexts if context.endswith("|setup")}
    # Lines that are run when the module is loaded are met by whoever meets any line of the file.
    if not direct and not files:
        direct = {context for some in seen["lines"][path].values() for context in some if context in seconds}
    others = [test for test in seconds if test.split("::")[0] in files and test not in direct]
    order = [test for some in (direct, others) for test in sorted(some, key=lambda test: (seconds[test], test))]
    taken, left = [], most
    for test in order:
        if seconds[test] < min(SLOW, left):
            taken.append(test)
            left -= seconds[test]
    return taken


def tried(tests: list[str]) -> int:
    """pytest's exit code."""
    return int(pytest.main([*QUIETLY, "-x", *tests]))


def in_child(folder: Path, work: Callable[[], Any], *, limit: float, log: Path) -> Any:
    """What `work` gives in a forked child with the copied code on its path; "timeout" after `limit` seconds."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder / "src")
        sys.path.insert(0, str(folder / "src"))
        try:
            answer.write_text(json.dumps(work()))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(0)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.02)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "timeout"
    return json.loads(answer.read_text()) if answer.exists() else "died"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=360)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=float, default=25.0, help="seconds of a core of tests for one mutant")
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, help="a file for the lines that are printed; a run goes on where it ends")
    parser.add_argument("--seen", type=Path, help="a file for what the first run finds, which the next run then uses")
    options = parser.parse_args()

    # Imported once, and forked: no test is run in this process.
    import cv2  # noqa: F401
    import google.protobuf.text_format  # noqa: F401
    import google_crc32c  # noqa: F401
    import hypothesis  # noqa: F401
    import numpy  # noqa: F401
    import PIL.Image  # noqa: F401
    import polars  # noqa: F401
    import simplejpeg  # noqa: F401
    import typer  # noqa: F401

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "headrace"
        for name in ("src", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        log = folder / "log.txt"
        judges = [f"tests/{path}" for path in JUDGES]
        if options.seen and options.seen.exists():
            seen = json.loads(options.seen.read_text())
        else:
            seen = in_child(folder, lambda: watched(folder, judges), limit=3600, log=log)
        if not isinstance(seen, dict) or not seen["seconds"]:
            sys.exit(f"the tests fail as they are:\n{log.read_text()[-3000:]}")
        if options.seen:
            options.seen.write_text(json.dumps(seen))
        print(f"{len(seen['seconds'])} tests; left out, as they fail under coverage: {seen['failed']}", flush=True)
        trees = {
            path: ast.parse((folder / "src" / "headrace" / path).read_text())
            for path in SUBJECTS
            if options.only in path
        }
        drawn = [(path, number) for path, tree in trees.items() for number in range(len(list(_sites(tree))))]
        total = len(drawn)
        random.Random(options.seed).shuffle(drawn)
        counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        done = options.out.read_text().splitlines() if options.out and options.out.exists() else []
        for number, (path, site) in enumerate(drawn[: options.sample]):
            if number < len(done):
                counts[path][done[number].split()[1]] += 1
                continue
            line, what, code = mutant(trees[path], site)
            subject = folder / "src" / "headrace" / path
            tests, whole = chosen(path, line, seen, options.most), subject.read_text()
            subject.write_text(code)
            limit = 60 + 10 * sum(seen["seconds"][test] for test in tests)

            found: Any = 0 if tests else "missed"
            for some in (tests[:FIRST], tests[FIRST:]):  # choosing hundreds takes longer than running some
                if some and found == 0:
                    found = in_child(folder, lambda some=some: tried(some), limit=limit, log=log)
            subject.write_text(whole)
            result = "survived" if found == 0 else "missed" if found == "missed" else "killed"
            counts[path][result] += 1
            text = whole.splitlines()[line - 1].strip()
            said = f"{number + 1}/{min(total, options.sample)} {result} {path}:{line} [{what}] {text}"
            print(said, flush=True)
            if options.out:
                with options.out.open("a") as file:
                    print(said, file=file)
        for path, count in sorted(counts.items()):
            print(f"{path}: {count['killed']} of {count.total()}")
        killed = sum(count["killed"] for count in counts.values())
        tried_ = sum(count.total() for count in counts.values())
        print(f"killed {killed} of {tried_} ({killed / tried_:.1%}), drawn from {total} with seed {options.seed}")


if __name__ == "__main__":
    main()
