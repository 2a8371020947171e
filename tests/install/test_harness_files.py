from __future__ import annotations

import json
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from heddle_registry.errors import UsageError
from heddle_registry.install.harness_files import (
    HARNESS_FILES,
    harness_file,
    settings_path,
    unwire,
    wire,
)
from heddle_registry.install.hook_files import UnfitSettings

PLUGINS = Path(__file__).parents[2] / "plugins"


@pytest.mark.parametrize("name", HARNESS_FILES)
def test_every_event_is_one_of_a_sessions_life_that_the_plugin_knows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(PLUGINS / name)
    plugin = import_module(f"heddle_registry_{name.replace('-', '_')}")
    (harness,) = plugin.heddle_harnesses()

    assert set(HARNESS_FILES[name].events) <= set(harness.events)
    assert {"opened", "closed"} <= {harness.events[event] for event in HARNESS_FILES[name].events}
    for event in HARNESS_FILES[name].events:
        assert "tool" not in event.lower()


def test_where_each_harness_keeps_its_settings_is_found_by_its_own_variables() -> None:
    def path(name: str, project: str | None = None, **environ: str) -> str:
        return settings_path(harness_file(name), environ, "/home/dev", project)

    assert path("claude") == "/home/dev/.claude/settings.json"
    assert path("claude-code", CLAUDE_CONFIG_DIR="/c") == "/c/settings.json"
    assert path("claude-code", "/work") == "/work/.claude/settings.local.json"
    assert path("codex", CODEX_HOME="/c") == "/c/hooks.json"
    assert path("codex", "/work", CODEX_HOME="/c") == "/work/.codex/hooks.json"
    assert path("gemini") == "/home/dev/.gemini/settings.json"
    assert path("qwen") == "/home/dev/.qwen/settings.json"
    assert path("copilot") == "/home/dev/.copilot/hooks/heddle-registry.json"
    assert path("opencode") == "/home/dev/.config/opencode/plugin/heddle-registry.js"
    assert path("opencode", XDG_CONFIG_HOME="/c") == "/c/opencode/plugin/heddle-registry.js"


def test_who_cannot_be_wired_is_told_what_to_do_instead() -> None:
    with pytest.raises(UsageError) as no_hooks:
        harness_file("aider")
    assert "no hooks" in no_hooks.value.message
    assert "list" in no_hooks.value.hint
    with pytest.raises(UsageError) as unknown:
        harness_file("gemini-clo")
    assert "gemini-cli" in unknown.value.hint


@pytest.mark.parametrize("name", ["copilot-cli", "opencode"])
def test_a_file_of_our_own_comes_and_goes_and_covers_nobodys(name: str) -> None:
    spec = harness_file(name)
    data = wire(spec, None, 2)

    assert wire(spec, data, 0) == data
    assert unwire(spec, data) == (None, 2)
    older = data.replace(b"python", b"python-of-yesterday")
    assert wire(spec, older, 0) == data
    theirs = b'{"version": 1, "hooks": {}}\n'
    assert unwire(spec, theirs) == (theirs, 0)
    with pytest.raises(UnfitSettings, match="not ours"):
        wire(spec, theirs, 0)


def test_each_hook_is_one_command_with_a_time_limit_in_the_harnesss_own_unit() -> None:
    for name, unit in (("claude-code", 1), ("codex", 1), ("gemini-cli", 1000), ("qwen-code", 1000)):
        spec = harness_file(name)
        hooks = json.loads(wire(spec, None, 0))["hooks"]
        assert tuple(hooks) == spec.events
        for event, ((group,),) in zip(hooks, [(h,) for h in hooks.values()], strict=True):
            (handler,) = group["hooks"]
            assert handler["type"] == "command"
            assert handler["command"].endswith(f" relay {name} {event}")
            assert handler["timeout"] == 10 * unit
    copilot = json.loads(wire(harness_file("copilot-cli"), None, 0))
    assert copilot["version"] == 1
    for event, (handler,) in copilot["hooks"].items():
        assert handler["bash"].endswith(f" relay copilot-cli {event}")


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_the_plugin_of_opencode_relays_what_names_the_session_and_nothing_else(
    tmp_path: Path,
) -> None:
    said = tmp_path / "said"
    relay = tmp_path / "relay.sh"
    relay.write_text(f'#!/bin/sh\necho "$@" >>{said}\ncat >>{said}\necho >>{said}\n')
    relay.chmod(0o755)
    source = wire(harness_file("opencode"), None, 0).decode()
    line = next(line for line in source.splitlines() if line.startswith("const [PROGRAM"))
    plugin = tmp_path / "plugin.mjs"
    plugin.write_text(
        source.replace(line, f"const [PROGRAM, ...WORDS] = {json.dumps([str(relay)])};")
    )
    main = tmp_path / "main.mjs"
    main.write_text("""
import { HeddleRegistry } from "./plugin.mjs";
const hooks = await HeddleRegistry({ directory: process.cwd() });
const info = { id: "ses_2", parentID: "ses_1", title: "a secret", directory: "/d" };
await hooks.event({ event: { type: "session.created", properties: { sessionID: "ses_2", info } } });
await hooks.event({ event: { type: "message.updated", properties: { sessionID: "ses_2" } } });
await hooks.event({ event: { type: "session.idle", properties: { sessionID: "ses_2" } } });
await hooks.event({ event: { type: "session.status", properties: { sessionID: "ses_2" } } });
const continued = { type: "session.updated", properties: { info: { id: "ses_9" } } };
await hooks.event({ event: continued });
await hooks.event({ event: { type: "session.deleted", properties: { info: { id: "ses_9" } } } });
const output = { env: {} };
await hooks["shell.env"]({ cwd: ".", sessionID: "ses_2", callID: "c" }, output);
console.log(JSON.stringify(output.env));
""")

    done = subprocess.run(
        ["node", main], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"OPENCODE_SESSION_ID": "ses_2"}
    lines = said.read_text().splitlines()
    assert lines[0::2] == [
        "session.created",
        "session.idle",
        "session.created",
        "session.deleted",
        "session.deleted",  # the end of the process is the end of its sessions
    ]
    payloads = [json.loads(line) for line in lines[1::2]]
    assert payloads[0] == {
        "type": "session.created",
        "properties": {
            "sessionID": "ses_2",
            "info": {"id": "ses_2", "parentID": "ses_1", "directory": "/d"},
        },
    }
    sessions = [payload["properties"]["sessionID"] for payload in payloads]
    assert sessions == ["ses_2", "ses_2", "ses_9", "ses_9", "ses_2"]
