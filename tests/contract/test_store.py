"""The stores that come with the package, held to what is asked of anybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.memory import MemoryStore
from heddle_registry.testing.store_suite import StoreSuite

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.ports import Host, Store


class TestDirectoryStore(StoreSuite):
    def open_store(self, host: Host, place: Path) -> Store:
        return DirectoryStore(str(place / ".heddle"), host, lock_timeout_s=30)


class TestMemoryStore(StoreSuite):
    def setup_method(self) -> None:
        self._stores: dict[Path, Store] = {}

    def open_store(self, host: Host, place: Path) -> Store:
        return self._stores.setdefault(place, MemoryStore(host))
