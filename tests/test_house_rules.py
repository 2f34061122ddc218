"""Rules of the house that no type checker knows, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "webapp").rglob("*.py"), *(ROOT / "plugins").glob("*.py"), ROOT / "worker.py"])
TABLES_WITH_STATE = ("batches", "runs", "items", "requests", "uploads", "plugin_installs", "deliveries")
DOMAIN = ("batches", "datasets", "delivery", "installed", "money", "runs")
STATES = [ROOT / "webapp" / "batches" / name for name in ("states.py", "outcomes.py")]
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


def shown(path: Path, node: ast.AST | int = 0) -> str:
    line = node if isinstance(node, int) else getattr(node, "lineno", 0)
    return f"{path.relative_to(ROOT)}:{line}"


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every literal text of a module with its line; the parts of an f-string joined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def assigns_a_state(sql: str) -> bool:
    """Whether a text is an UPDATE that sets a state, or an INSERT that gives one."""
    for table in TABLES_WITH_STATE:
        update = re.search(
            rf"\bUPDATE\s+{table}\b.*?\bSET\b(.*?)(\bWHERE\b|\bFROM\b|$)", sql, re.DOTALL | re.IGNORECASE
        )
        if update and re.search(r"(?<![\w.])(state|output_state)\s*=", update[1]):
            return True
        insert = re.search(rf"\bINSERT\s+INTO\s+{table}\s*\(([^)]*)\)", sql, re.DOTALL | re.IGNORECASE)
        if insert and re.search(r"\b(state|output_state)\b", insert[1]):
            return True
    return False


def test_nobody_but_the_room_of_states_assigns_a_state() -> None:
    found = [
        shown(path, line)
        for path in SOURCES
        if path not in STATES and "sandbox" not in path.parts  # it has a store of its own
        for line, text in strings(ast.parse(path.read_text()))
        if assigns_a_state(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("sql", "assigns"),
    [
        ("UPDATE batches SET state = 'done' WHERE id = 1", True),
        ("UPDATE items i SET x = 1, output_state = 'ok' FROM v WHERE i.id = v.id", True),
        ("update runs\n set reason = 'a', state = :to", True),
        ("INSERT INTO requests (id, state) VALUES (1, 'pending')", True),
        ("UPDATE batches SET reason = 'x' WHERE state = 'done'", False),
        ("UPDATE steps SET state = 'done'", False),
        ("SELECT * FROM runs WHERE state = 'done'", False),
        ("UPDATE runs SET state_since = now()", False),
    ],
)
def test_an_assignment_of_a_state_is_seen(sql: str, assigns: bool) -> None:
    assert assigns_a_state(sql) is assigns


def test_the_room_of_states_guards_every_assignment() -> None:
    """A move names the states it may come from, in the same statement."""
    trees = [ast.parse(path.read_text()) for path in STATES]
    updates = [text for tree in trees for _, text in strings(tree) if assigns_a_state(text)]
    assert len(updates) >= 4
    for text in updates:
        guards = r"(state = ANY|\.state = 'pending'|state = v\.was|NOT IN|output_state = 'waiting'|i\.attempts)"
        assert re.search(guards, text), text


class _Calls(ast.NodeVisitor):
    """Calls of the gateway that stand within `with db.transaction()`, and those that do not."""

    def __init__(self) -> None:
        self.open = 0
        self.within: list[ast.AST] = []
        self.outside: list[ast.AST] = []

    def visit_With(self, node: ast.With) -> None:
        opens = sum("transaction(" in ast.unparse(item.context_expr) for item in node.items)
        for item in node.items:
            self.visit(item)
        self.open += opens
        for statement in node.body:
            self.visit(statement)
        self.open -= opens

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr == "gateway" or (isinstance(node.value, ast.Name) and node.value.id == "gateway"):
            (self.within if self.open else self.outside).append(node)
        self.generic_visit(node)


def test_no_transaction_is_open_during_a_call_of_the_api() -> None:
    within, outside = [], []
    for path in sorted((ROOT / "webapp").rglob("*.py")):
        calls = _Calls()
        calls.visit(ast.parse(path.read_text()))
        within += [shown(path, node) for node in calls.within]
        outside += calls.outside
    assert within == []
    assert len(outside) >= 5  # the rule looks at something


def test_a_call_within_a_transaction_is_seen() -> None:
    calls = _Calls()
    calls.visit(ast.parse("with a, db.transaction() as tx:\n    x = desk.gateway.retrieve(1)\ngateway.pages()\n"))
    assert (len(calls.within), len(calls.outside)) == (1, 1)


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    names = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert [shown(path) for path in SOURCES if names & {part.removesuffix(".py") for part in path.parts}] == []


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports them by that name: in one process, the second would not run."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_file_is_too_long() -> None:
    lengths = {shown(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FILE} == {}


def test_no_function_is_too_long() -> None:
    found = [
        f"{shown(path, node)} {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    ]
    assert found == []


def test_each_module_says_what_it_is_for() -> None:
    empty = {ROOT / "plugins" / "__init__.py"}
    for path in SOURCES:
        words = ast.get_docstring(ast.parse(path.read_text()))
        assert words or path in empty, shown(path)


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [
        shown(path, number)
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


def test_an_ignored_finding_has_its_reason() -> None:
    """`# noqa: X - why`; rules that are long alone need none."""
    bare = re.compile(r"# noqa(?!: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)* - \S)")
    constant = "# noqa: S608"  # SQL put together of our own constants says so on its own
    found = [
        shown(path, number)
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line) and not line.rstrip().endswith(constant)
    ]
    assert found == []


def test_our_own_clock_is_never_compared_with_a_lease_or_a_due_time() -> None:
    """Leases and due times are the database's: `now()` in the statement, no parameter of ours."""
    for path in (path for room in DOMAIN for path in sorted((ROOT / "webapp" / room).glob("*.py"))):
        source = path.read_text()
        assert not re.search(r"(lease_until|due_at|nudged_at)\s*(=|<|>|<=|>=)\s*:", source), path
        assert "time.time()" not in source and "utcnow" not in source, path


def test_money_is_never_a_float() -> None:
    for path in sorted((ROOT / "webapp" / "money").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Call) and ast.unparse(node.func) == "float"), shown(path, node)
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), shown(path, node)


def test_every_time_of_ours_is_in_utc() -> None:
    naive = re.compile(r"datetime\.(utcnow|utcfromtimestamp)\(|datetime\.now\(\)|datetime\.fromtimestamp\([^,)]*\)")
    assert [shown(path) for path in SOURCES if naive.search(path.read_text())] == []


def test_nothing_needs_a_database_session_to_last() -> None:
    """pgbouncer in transaction mode: no advisory lock of a session, no temporary table, no LISTEN."""
    taboo = re.compile(r"pg_(try_)?advisory_lock|CREATE\s+TEMP|\bLISTEN\s+\w|\bSET\s+SESSION\b", re.IGNORECASE)
    found = [
        shown(path, line)
        for path in SOURCES
        if "sandbox" not in path.parts and "local" not in path.parts
        for line, text in strings(ast.parse(path.read_text()))
        if taboo.search(text) and ast.get_docstring(ast.parse(path.read_text())) != text.strip()
    ]
    assert found == []
