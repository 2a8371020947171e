from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import heddle_registry_codex

from heddle_registry.plugins import Plugins
from heddle_registry.probe import probe_recorded
from heddle_registry.testing.probe_kit import command, hook, probe_contract

if TYPE_CHECKING:
    from pathlib import Path

TestContract = probe_contract(heddle_registry_codex)
PLUGINS = Plugins([("codex", heddle_registry_codex)])
# UUIDv7 of 2026-11-22; the local date of the folders may be a day off.
ROOT, MIDDLE, LEAF = (f"01a2029f-b030-7622-8c35-00000000000{n}" for n in range(3))


def rollout(home: Path, thread: str, day: str = "22", **meta: Any) -> None:
    folder = home / ".codex" / "sessions" / "2026" / "11" / day
    folder.mkdir(parents=True, exist_ok=True)
    first = {"type": "session_meta", "payload": {"id": thread, **meta}}
    turn = {"type": "turn_context", "payload": {"model": f"model-{thread[-1]}", "effort": "high"}}
    path = folder / f"rollout-2026-11-{day}T09-39-06-{thread}.jsonl"
    path.write_text(f"{json.dumps(first)}\n{json.dumps(turn)}\n")


def of_command(home: Path, thread: str, session: str = ROOT) -> Any:
    environment = {"HOME": "/home/dev", "CODEX_THREAD_ID": thread, "CODEX_SESSION_ID": session}
    situation = command(environment, argv=[["make"], ["/opt/codex"]], home=str(home))
    return probe_recorded(situation, PLUGINS).chain


def links(chain: Any) -> list[tuple[str, str | None]]:
    return [(x.native_actor_key[-1], (x.native_parent_actor_key or "-")[-1]) for x in chain]


def test_a_thread_of_a_thread_has_that_thread_as_its_parent(tmp_path: Path) -> None:
    rollout(tmp_path, ROOT)
    rollout(tmp_path, MIDDLE, parent_thread_id=ROOT)
    spawn = {"subagent": {"thread_spawn": {"parent_thread_id": MIDDLE, "depth": 2}}}
    rollout(tmp_path, LEAF, day="21", source=spawn)
    chain = of_command(tmp_path, LEAF)
    assert links(chain) == [("0", "-"), ("1", "0"), ("2", "1")]
    assert chain[-1].model == "model-2"
    assert chain[-1].thinking_level == "high"
    assert chain[-1].transcript.endswith(f"11/21/rollout-2026-11-21T09-39-06-{LEAF}.jsonl")


def test_what_lies_between_a_thread_and_its_root_is_not_made_up(tmp_path: Path) -> None:
    rollout(tmp_path, LEAF, parent_thread_id=MIDDLE)
    assert links(of_command(tmp_path, LEAF)) == [("0", "-"), ("1", "-"), ("2", "1")]


def test_without_any_rollout_a_sub_thread_is_probably_the_roots(tmp_path: Path) -> None:
    chain = of_command(tmp_path, LEAF)
    assert links(chain) == [("0", "-"), ("2", "0")]
    assert chain[-1].confidence <= 0.75


def test_a_forked_thread_says_what_it_continues(tmp_path: Path) -> None:
    rollout(tmp_path, ROOT, forked_from_id=MIDDLE)
    chain = of_command(tmp_path, ROOT)
    assert links(chain) == [("0", "-")]
    assert chain[-1].continues == f"codex:thread:{MIDDLE}"


def test_rollouts_that_name_each_other_as_parents_do_not_hang_the_probe(tmp_path: Path) -> None:
    rollout(tmp_path, MIDDLE, parent_thread_id=LEAF)
    rollout(tmp_path, LEAF, parent_thread_id=MIDDLE)
    assert len(of_command(tmp_path, LEAF)) <= 3


def test_a_moved_codex_home_is_read(tmp_path: Path) -> None:
    rollout(tmp_path, ROOT)
    environment = {
        "HOME": "/nowhere",
        "CODEX_HOME": str(tmp_path / ".codex"),
        "CODEX_THREAD_ID": ROOT,
        "CODEX_SESSION_ID": ROOT,
    }
    found = probe_recorded(command(environment, argv=[["make"], ["codex"]]), PLUGINS)
    assert found.actor.model == "model-0"


def test_the_notify_programs_payload_names_the_thread(tmp_path: Path) -> None:
    rollout(tmp_path, ROOT)
    payload = {"type": "agent-turn-complete", "thread-id": ROOT, "turn-id": "t"}
    found = probe_recorded(hook("codex", "notify", payload, home=str(tmp_path)), PLUGINS)
    assert found.actor.native_actor_key == f"codex:thread:{ROOT}"
