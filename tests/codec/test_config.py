from __future__ import annotations

import pytest

from heddle_registry.codec.config import (
    AttachRuleSetting,
    AttachSettings,
    PluginSettings,
    Settings,
    merge,
    settings_from_toml,
)
from heddle_registry.errors import UsageError

GOOD = b"""\
lock_timeout_s = 2
default_ttl_s = 60.5
detection = false

[plugins]
disabled = ["aider"]
pinned = {claude = "1.2"}

[[attach.rules]]
name = "release-branches"
when = {thread = "release/*"}
attach_to = "create"
before = "token-sid"

[[attach.rules]]
name = "other"
attach_to = "create"
reason = "because"
"""


def refusal_of(data: bytes) -> str:
    with pytest.raises(UsageError) as caught:
        settings_from_toml(data, "config.toml")
    assert caught.value.message.startswith("config.toml cannot be used: ")
    return caught.value.message.removeprefix("config.toml cannot be used: ")


def test_every_key_is_read_and_an_empty_file_says_nothing():
    assert settings_from_toml(GOOD, "config.toml") == Settings(
        lock_timeout_s=2.0,
        default_ttl_s=60.5,
        detection=False,
        plugins=PluginSettings(disabled=("aider",), pinned={"claude": "1.2"}),
        attach=AttachSettings(
            rules=(
                AttachRuleSetting(
                    name="release-branches",
                    when={"thread": "release/*"},
                    attach_to="create",
                    before="token-sid",
                ),
                AttachRuleSetting(name="other", attach_to="create", reason="because"),
            )
        ),
    )
    assert settings_from_toml(b" \n", "config.toml") == Settings()


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        (b"lock_timeuot_s = 1\n", ["lock_timeuot_s: unknown key (line 1)"]),
        (
            GOOD + b"[attach.rules.whne]\nx = 1\n",
            ["attach.rules[1].whne: unknown key (line 19)"],
        ),
        (
            b"[attach]\nstyle = 1\n\n[[attach.rules]]\nname = 3\nwhen = {thread = 4}\n",
            [
                "attach.style: unknown key (line 2)",
                "attach.rules[0].name: must be a string (line 5)",
                "attach.rules[0].when.thread: must be a string (line 6)",
                "attach.rules[0].attach_to: missing (line 4)",
            ],
        ),
        (b'attach.rules = "abc"\n', ["attach.rules: must be an array (line 1)"]),
        (b"plugins = 3\n", ["plugins: must be a table (line 1)"]),
        (b"[plugins]\ndisabled = ['a', 1]", ["plugins.disabled[1]: must be a string (line 2)"]),
        (b"detection = 'yes'\n", ["detection: must be true or false (line 1)"]),
        (b"lock_timeout_s = nan\n", ["lock_timeout_s: must be a number (line 1)"]),
        (b"lock_timeout_s = -1\n", ["lock_timeout_s: must not be negative (line 1)"]),
        (b"default_ttl_s = 0\n", ["default_ttl_s: a TTL of 0 s is not allowed", "(line 1)"]),
        (
            GOOD + b"after = 'a'\nbefore = 'b'\n[[attach.rules]]\nname = 'other'\nattach_to = ''\n",
            [
                "attach.rules[1].after: a rule has `before` or `after`, not both (line 19)",
                "attach.rules[2].attach_to: must not be empty (line 23)",
                "attach.rules[2].name: 'other' is the name of a rule above (line 22)",
            ],
        ),
        (b'"\\u001b[2J" = 1\n', ['"\\u001B[2J": unknown key']),
        (b"x = [\n", ["(at end of document)"]),
        (b"x = 1\n\xff", ["not UTF-8 (at line 2)"]),
        (b"x = " + b"[" * 100_000, ["nested too deeply"]),
    ],
)
def test_a_mistake_is_told_with_its_key_and_line(data, problems):
    message = refusal_of(data)
    assert [problem for problem in problems if problem not in message] == [], message
    assert message.isprintable()


def rule(name: str, reason: str) -> AttachRuleSetting:
    return AttachRuleSetting(name=name, attach_to="create", reason=reason)


def test_higher_layers_win_value_by_value_and_rule_by_rule():
    user = Settings(
        lock_timeout_s=9.0,
        detection=True,
        attach=AttachSettings(rules=(rule("a", "user"), rule("b", "user"))),
        plugins=PluginSettings(disabled=("x",), pinned={"p": "1", "q": "1"}),
    )
    repository = Settings(
        detection=False,
        default_ttl_s=60.0,
        attach=AttachSettings(rules=(rule("b", "repository"),)),
        plugins=PluginSettings(disabled=("y",), pinned={"p": "2"}),
    )
    merged = merge(options=Settings(default_ttl_s=5.0), repository=repository, user=user)
    assert merged == Settings(
        lock_timeout_s=9.0,
        default_ttl_s=5.0,
        detection=False,
        attach=AttachSettings(rules=(rule("b", "repository"), rule("a", "user"))),
        plugins=PluginSettings(disabled=("y", "x"), pinned={"p": "2", "q": "1"}),
    )
    assert merge() == Settings()
