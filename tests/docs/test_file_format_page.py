"""The page of the files has every key in its order; its examples are what the program writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli

from heddle_registry import AgentRegistry
from heddle_registry.adapters.layout import Layout
from heddle_registry.codec.claims import CLAIM
from heddle_registry.codec.entries import ENTRY
from heddle_registry.codec.tables import SubTable, Table, TableArray
from heddle_registry.core.claim import EndCause

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "file-format.md").read_text()
KEY_TABLE = re.compile(r"^\| key([^|]*)\|.*\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def tables_of(record: Table, name: str) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    yield name, [(field.key, field.required) for field in record._fields]
    for field in record._fields:
        if isinstance(field, SubTable | TableArray):
            yield from tables_of(field.table, field.key)


def tables_on_the_page() -> dict[str, list[tuple[str, bool]]]:
    found = {}
    entries, claims = PAGE.split("\n## Claims\n")
    for part, name in ((entries, "entry"), (claims, "claim")):
        for title, rows in KEY_TABLE.findall(part):
            inner = re.search(r"of `(?:\[+)?(\w+)", title)
            found[inner[1] if inner else name] = [
                (key, answer.strip() == "yes")
                for key, answer in re.findall(r"^\| `(\w+)` \|([^|]*)\|", rows, re.MULTILINE)
            ]
    return found


def test_every_key_of_every_table_stands_there_in_its_order_and_says_whether_it_is_required():
    written = {**dict(tables_of(ENTRY, "entry")), **dict(tables_of(CLAIM, "claim"))}
    shown = tables_on_the_page()
    assert shown.keys() == written.keys()
    for name, keys in written.items():
        assert [key for key, _ in shown[name]] == [key for key, _ in keys], name
        # A table without the column has no required key.
        assert [key for key, told in shown[name] if told] == [k for k, must in keys if must], name


def test_every_file_and_folder_of_the_layout_is_on_the_page(tmp_path: Path):
    layout = Layout(str(tmp_path))
    for part in Layout.__slots__:
        if part != "root":
            assert Path(getattr(layout, part)).name in PAGE
    assert all(f"`{cause}`" in PAGE for cause in EndCause)


def shape(text: str) -> list[str]:
    """Return the lines with the kind of each value in the place of the value."""
    return [re.sub(r" = .*", lambda m: f" = {type(value_of(m[0])).__name__}", line)
            for line in text.strip().splitlines()]  # fmt: skip


def value_of(assignment: str) -> object:
    return tomli.loads(f"value{assignment}")["value"]


@pytest.mark.parametrize(
    ("folder", "example"), list(zip(("agents", "claims"), EXAMPLES, strict=True))
)
def test_the_examples_are_what_a_reservation_writes(folder: str, example: str, tmp_path: Path):
    registry = AgentRegistry(tmp_path / ".heddle")
    with registry.reserve("feature/login", ttl_s=300, task="add OAuth"):
        (path,) = (tmp_path / ".heddle" / folder).glob("*.toml")
        written = path.read_text()
    assert shape(written) == shape(example)
    if folder == "claims":
        # The name that the page explains.
        assert path.stem == Layout(".").claim_name("feature/login").removesuffix(".toml")
