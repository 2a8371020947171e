from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle_registry.install.hook_files import UnfitSettings, add_hooks, remove_hooks

WANTED = {
    event: {"hooks": [{"type": "command", "command": f"ours relay {event}", "timeout": 10}]}
    for event in ("SessionStart", "Stop")
}
THEIRS = {"hooks": [{"type": "command", "command": "theirs"}]}


def is_ours(command: str) -> bool:
    return command.startswith("ours relay")


def added(text: str | None) -> str:
    return add_hooks(text.encode() if text is not None else None, WANTED, is_ours).decode()


def removed(text: str) -> str | None:
    data, _ = remove_hooks(text.encode(), is_ours)
    return data.decode() if data is not None else None


PLACES = [
    "",
    "\n",
    "  \n\n",
    "{}",
    "{ }\n",
    '{"model": "x"}',
    '{\n    "model": "x"\n}\n',
    '{\n\t"hooks": {}\n}',
    '{"hooks": {"Stop": []}}',
    '{"hooks": {"Stop": [ ], "Other": []}, "z": 1}',
    '{\n  "hooks": {\n    "Stop": [\n      ' + json.dumps(THEIRS) + "\n    ]\n  },\n}\n",
    '\ufeff{\r\n  // mine\r\n  "model": "x" // also mine\r\n}\r\n',
    '{"hooks": {"Stop": [' + json.dumps(THEIRS) + ",]}}",
]


@pytest.mark.parametrize("text", PLACES)
def test_settings_are_the_same_bytes_after_hooks_came_and_went(text: str) -> None:
    longer = added(text)

    assert longer != text
    assert added(longer) == longer
    assert removed(longer) == text


def test_a_file_that_was_not_there_goes_again_with_the_folders_made_for_it() -> None:
    data = add_hooks(None, WANTED, is_ours, made_folders=2)

    assert json.loads(data)["hooks"] == {event: [group] for event, group in WANTED.items()}
    assert remove_hooks(data, is_ours) == (None, 2)
    assert remove_hooks(add_hooks(None, WANTED, is_ours), is_ours) == (None, 0)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_a_file_that_the_harness_wrote_anew_keeps_nothing_of_ours(indent: int | str | None) -> None:
    data = json.loads(added(None))
    assert removed(json.dumps(data, indent=indent)) is None

    data["model"] = "x"
    data["hooks"]["Stop"].append(THEIRS)
    rest = removed(json.dumps(data, indent=indent))
    assert rest is not None
    assert json.loads(rest) == {"hooks": {"Stop": [THEIRS]}, "model": "x"}


def test_what_the_user_changed_meanwhile_stays() -> None:
    text = '{\n  "model": "x"\n}\n'
    edited = added(text).replace('"model": "x"', '// better\n  "model": "y", "more": [1]')

    assert removed(edited) == '{\n  // better\n  "model": "y", "more": [1]\n}\n'


def test_a_hook_of_ours_among_others_in_one_group_goes_alone() -> None:
    ours = WANTED["Stop"]["hooks"][0]
    text = json.dumps({"hooks": {"Stop": [{"matcher": "*", "hooks": [*THEIRS["hooks"], ours]}]}})

    rest = removed(text)

    assert rest is not None
    assert json.loads(rest) == {"hooks": {"Stop": [{"matcher": "*", **THEIRS}]}}


def test_hooks_of_an_older_command_or_event_are_replaced_not_doubled() -> None:
    text = '{\n  "model": "x"\n}\n'
    older = {"Gone": WANTED["Stop"], "Stop": {"hooks": [{"command": "ours relay old"}]}}
    data = add_hooks(text.encode(), older, is_ours)

    assert add_hooks(data, WANTED, is_ours) == added(text).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{not json", "line 1"),
        (b"[]", "no object"),
        (b'{"hooks": []}', "no object"),
        (b'{"hooks": {"Stop": {}}}', "no list"),
        (b'{"hooks": {}, "hooks": {}}', "twice"),
        (b"\xff\xfe", "UTF-8"),
        (b"// only a comment", "no JSON"),
    ],
)
def test_settings_of_another_shape_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(UnfitSettings, match=why):
        add_hooks(data, WANTED, is_ours)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
GROUPS = st.dictionaries(
    st.sampled_from(["SessionStart", "Stop", "Other"]), st.lists(st.just(THEIRS), max_size=2)
)


@given(
    settings=st.dictionaries(
        st.text(max_size=5).filter(lambda key: key != "hooks"), JSON, max_size=3
    ),
    hooks=st.none() | GROUPS,
    indent=st.sampled_from([None, 0, 2, 4, "\t"]),
    end=st.sampled_from(["", "\n", " \n\n"]),
)
def test_any_settings_come_back_as_they_were(settings, hooks, indent, end) -> None:
    content = settings if hooks is None else {**settings, "hooks": hooks}
    text = json.dumps(content, indent=indent, ensure_ascii=False) + end

    longer = added(text)

    found = json.loads(longer)
    for event, group in WANTED.items():
        assert found["hooks"][event] == [*(hooks or {}).get(event, []), group]
    assert {key: value for key, value in found.items() if key != "hooks"} == settings
    assert removed(longer) == text
