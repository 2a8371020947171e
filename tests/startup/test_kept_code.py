"""What attrs generates is compiled once for all commands, and nobody else's code is ever run."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from heddle_registry import kept_code
from heddle_registry.cache_folder import cache_folder
from heddle_registry.kept_code import MOST_KEPT, KeptCode
from tests.process_helpers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

COUNT = """
import builtins, os, sys
os._exit = sys.exit  # for what comes after
compiled = []
real = builtins.compile
def compile(source, filename, *more, **named):
    compiled.append(str(filename))
    return real(source, filename, *more, **named)
builtins.compile = compile
from heddle_registry.__main__ import program
sys.argv = ["heddle-registry", *sys.argv[1:]]
try:
    program()
finally:
    ours = [name for name in compiled if name.startswith("<attrs generated methods heddle")]
    print(len(ours), file=sys.stderr)
"""
"""A command that tells on stderr how many of our classes it compiled something for."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HEDDLE_DIR", str(tmp_path / ".heddle"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Or one more class is compiled while something that looks like a harness runs on this machine.
    monkeypatch.setenv("HEDDLE_REGISTRY_DETECTION", "0")
    monkeypatch.chdir(tmp_path)
    return home


def kept(home: Path) -> Path:
    (file,) = (home / ".cache" / "heddle-registry").glob("*.code")
    return file


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=60
    )


def command(*words: str) -> tuple[str, int]:
    """What a command says, and for how many classes of ours it compiled."""
    done = run("-c", COUNT, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout, int(done.stderr)


def test_a_second_command_compiles_nothing_that_the_first_has_and_says_the_same(home):
    first, compiled = command("list", "--json")
    assert compiled > 10
    assert command("list", "--json") == (first, 0)
    _, more = command("reserve", "main", "--ttl", "60", "--json")
    assert 0 < more < compiled, "only what `list` had no use for"
    assert command("list", "--all")[1] == command("reserve", "other", "--ttl", "60")[1] == 0
    assert kept(home).stat().st_mode & 0o777 == 0o600
    assert list(kept(home).parent.iterdir()) == [kept(home)]


def plant(file: Path, marker: Path) -> None:
    """Put code that makes ``marker`` in the place of all that is kept, as only its writer can."""
    head, _, data = file.read_bytes().partition(b"\n")
    version, known = marshal.loads(data)
    evil = compile(f"open({str(marker)!r}, 'w').close()", "<evil>", "exec")
    made = file.stat()
    # What named tuples evaluate has no `open`.
    planted = {key: code if key[0] == "<string>" else evil for key, code in known.items()}
    file.write_bytes(head + b"\n" + marshal.dumps((version, planted)))
    os.utime(file, ns=(made.st_mtime_ns, made.st_mtime_ns))


def opened_to_others(file: Path) -> None:
    file.chmod(0o666)


def folder_opened_to_others(file: Path) -> None:
    file.parent.chmod(0o777)


def linked(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def given_away(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives a file away")
    os.chown(file, 65534, 65534)


def readable_by_others(file: Path) -> None:
    file.chmod(0o644)  # as whatever git checks out


def another_file(file: Path) -> None:
    """As from a clone or an archive: of the same content, time and mode."""
    made, data = file.stat(), file.read_bytes()
    file.rename(file.with_name("elsewhere"))
    file.write_bytes(data)
    file.chmod(0o600)
    os.utime(file, ns=(made.st_mtime_ns, made.st_mtime_ns))


def of_another_time(file: Path) -> None:
    os.utime(file)


def made_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


@pytest.mark.parametrize(
    "attack",
    [
        opened_to_others,
        folder_opened_to_others,
        linked,
        given_away,
        readable_by_others,
        another_file,
        of_another_time,
        made_a_pipe,
    ],
)
def test_a_file_that_another_may_have_written_is_not_run(home, tmp_path, attack):
    expected, compiled = command("list", "--json")
    plant(kept(home), tmp_path / "ran")
    attack(kept(home))
    assert command("list", "--json") == (expected, compiled)
    assert not (tmp_path / "ran").exists()


def test_the_planted_code_would_have_run_in_a_file_of_ones_own(home, tmp_path):
    command("list")
    plant(kept(home), tmp_path / "ran")
    done = run("-m", "heddle_registry", "list")
    assert (tmp_path / "ran").exists(), done.stderr


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"no code at all",
        marshal.dumps(("another Python", {})),
        marshal.dumps((sys.version, ["no table"])),
        marshal.dumps(sys.version),
    ],
)
def test_a_file_that_is_none_is_written_anew(home, content):
    command("list")
    with kept(home).open("r+b") as file:
        file.truncate()
        kept_code._write(file.fileno(), content)
    assert command("list")[1] > 0
    assert command("list")[1] == 0


def test_a_torn_file_is_written_anew(home):
    command("list")
    with kept(home).open("r+b") as file:
        data = file.read().partition(b"\n")[2]
        file.truncate(0)
        file.seek(0)
        kept_code._write(file.fileno(), data[: len(data) // 2])
    assert command("list")[1] > 0
    assert command("list")[1] == 0


def test_without_a_home_nothing_is_kept_and_nothing_is_made(home):
    home.rmdir()
    assert command("list")[1] == command("list")[1] > 0
    assert not home.exists()


@pytest.mark.parametrize("call", ["write", "utime", "replace"])
def test_a_file_that_cannot_be_made_is_not_left_behind(tmp_path, monkeypatch, call):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    code = KeptCode(str(tmp_path))
    tmp_path.chmod(0o700)
    code.compile("a = 1", "<attrs generated x>", "exec")
    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        code.keep()
    assert list(tmp_path.iterdir()) == []
    code.keep()
    assert len(list(tmp_path.iterdir())) == 1


def test_where_nothing_would_be_believed_nothing_is_written(home):
    folder = home / ".cache" / "heddle-registry"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert command("list")[1] > 0
    assert list(folder.iterdir()) == []


def test_a_place_that_cannot_be_written_costs_nothing_but_time(home):
    (home / ".cache").write_text("a file")
    assert command("list")[1] == command("list")[1] > 0


@pytest.mark.parametrize("place", ["cache", "./cache", ""])
def test_the_current_directory_is_no_cache(home, tmp_path, place):
    assert cache_folder({"XDG_CACHE_HOME": place}, str(home)) == f"{home}/.cache/heddle-registry"
    assert cache_folder({}, ".") is None
    chosen = cache_folder({"XDG_CACHE_HOME": str(tmp_path)}, str(home))
    assert chosen == f"{tmp_path}/heddle-registry"


def test_the_file_begins_anew_before_it_grows_without_end(tmp_path):
    folder = tmp_path / ".cache" / "heddle-registry"
    many = KeptCode(str(folder))
    for number in range(MOST_KEPT):
        many.compile("a = 1", f"<attrs generated {number}>", "exec")
    many.keep()
    size = kept(tmp_path).stat().st_size
    one = KeptCode(str(folder))
    one.compile("a = 2", "<attrs generated one>", "exec")
    one.keep()
    assert 0 < kept(tmp_path).stat().st_size < size / 10


def test_only_what_attrs_generates_is_kept(tmp_path):
    code = KeptCode(str(tmp_path))
    assert eval(code.compile("1 + 1", "<string>", "eval")) == 2
    code.keep()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SyntaxError):
        code.compile("a = = 1", "<attrs generated z>", "exec")


def test_a_hash_is_found_again_though_each_process_writes_another_number_into_it(tmp_path):
    text = "def __hash__(self):\n    return hash((\n        {},\n        self.{},\n    ))"
    first = KeptCode(str(tmp_path))
    kept = first.compile(text.format(-1234, "a"), "<attrs generated y>", "exec")
    first.keep()
    later = KeptCode(str(tmp_path))
    later._known = kept_code._read(str(tmp_path))
    assert later.compile(text.format(5678, "a"), "<attrs generated y>", "exec") == kept
    assert later.compile(text.format(-1234, "b"), "<attrs generated y>", "exec") != kept


def test_only_a_generated_hash_is_found_by_a_text_with_another_number(tmp_path):
    code = KeptCode(str(tmp_path))
    first, other = ("Literal[hash((1, 0))]", "Literal[hash((2, 0))]")
    assert code._kept(first, "<string>", "eval") != code._kept(other, "<string>", "eval")
    text = "return_ = hash((\n {},\n self.a)) == hash((\n {},\n 0))"
    name = "<attrs generated hash z>"
    kept = code._kept(text.format(1, 2), name, "exec")
    assert code._kept(text.format(3, 2), name, "exec") is kept
    assert code._kept(text.format(1, 3), name, "exec") != kept


NAMED = """
from collections import namedtuple
from typing import NamedTuple
class Point(NamedTuple):
    x: int
    y: int = 2
print(Point(1), Point(y=3, x=1), Point(1) == (1, 2), Point.__annotations__)
print(namedtuple("Pair", "x y")(1, 2), namedtuple("Pair", "y x")(1, 2), namedtuple("None_", "")())
try:
    Point()
except TypeError as error:
    print(error)
"""
KEPT = "from heddle_registry.kept_code import KeptCode; kept = KeptCode('cache'); kept.install()"


@pytest.mark.usefixtures("home")
def test_named_tuples_are_what_they_always_were():
    expected = run("-c", NAMED)
    for _ in range(2):  # the first keeps what the second finds
        found = run("-c", f"{KEPT}\n{NAMED}\nkept.keep()")
        assert (found.stdout, found.stderr) == (expected.stdout, "")
    planted = "kept._known.update(dict.fromkeys(kept._known, compile('7', '', 'eval')))"
    assert "'int' object" in run("-c", f"{KEPT}\n{planted}\n{NAMED}").stderr


COMPILES = """
import ast, sys
space = {}
try:
    how = (0, True) if sys.argv[1:] else ()
    exec(compile("def f(a: not_there): pass", "x", "exec", *how), space)
    print(space["f"].__annotations__)
except NameError as error:
    print(error)
print(ast.dump(compile("a", "x", "eval", ast.PyCF_ONLY_AST, optimize=2)))
"""
INSTALLED = "from heddle_registry.kept_code import KeptCode; KeptCode('cache').install()"


@pytest.mark.parametrize("words", [(), ("do not inherit",)])
@pytest.mark.parametrize("future", ["pass", "from __future__ import annotations"])
@pytest.mark.usefixtures("home")
def test_everybody_elses_code_is_compiled_as_ever(future, words):
    expected = run("-c", f"{future}\n{COMPILES}", *words)
    found = run("-c", f"{future}\n{INSTALLED}\n{COMPILES}", *words)
    assert (found.stdout, found.stderr) == (expected.stdout, "")
