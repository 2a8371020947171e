"""``why``: who has a branch, or what is known of a session, and by what evidence."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from heddle_registry.explain import BranchStory
    from heddle_registry.overview import EntryStory
    from heddle_registry.registry import AgentRegistry

_ID_LENGTH = len("agent-") + 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument("what", metavar="BRANCH|ID", help="a branch, or a session's id")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--thread", action="store_true", help="it is a branch, whatever it looks like"
    )
    kind.add_argument("--id", action="store_true", help="it is a session's id")


def run(args: argparse.Namespace) -> int:
    """Tell the story and return 0; a branch that is blocked by a damaged file is a story too."""
    from heddle_registry.cli.context import open_registry
    from heddle_registry.explain import why_branch

    registry = open_registry(args)
    story = None if args.thread else _entry_story(registry, args.what, is_id=args.id)
    if story is None:
        branch = why_branch(registry, args.what)
        if args.json:
            from heddle_registry.cli.output import print_json

            print_json(_branch_json(branch))
        else:
            _print_branch(branch)
        return 0
    branch_of_it = _branch_of(registry, story)
    if args.json:
        from heddle_registry.cli.output import print_json

        print_json(_entry_json(story, branch_of_it))
    else:
        _print_entry(story, branch_of_it)
    return 0


def _entry_story(registry: AgentRegistry, what: str, *, is_id: bool) -> EntryStory | None:
    # None: it is a branch.
    from heddle_registry.core.limits import is_session_id

    if not is_id and not is_session_id(what):
        return None
    from heddle_registry.errors import RegistryError, UnknownEntry
    from heddle_registry.explain import why_branch
    from heddle_registry.overview import why_entry

    try:
        return why_entry(registry, what)
    except UnknownEntry:
        looks_like_one = what.startswith("agent-") and len(what) == _ID_LENGTH
        if is_id or (looks_like_one and _is_unheard_of(registry, what)):
            raise
    except RegistryError:
        # A damaged file of that name; unless it is a branch that somebody knows, it is meant.
        if is_id or why_branch(registry, what).state == "free":
            raise
    return None


def _is_unheard_of(registry: AgentRegistry, thread: str) -> bool:
    from heddle_registry.explain import why_branch

    story = why_branch(registry, thread)
    return story.state == "free" and story.claim is None and not story.others


def _branch_of(registry: AgentRegistry, story: EntryStory) -> BranchStory | None:
    from heddle_registry.errors import UsageError
    from heddle_registry.explain import why_branch

    try:
        return why_branch(registry, story.entry.thread)
    except UsageError:
        return None  # the Rust tool takes any text for a thread; this program has none such


def _branch_json(story: BranchStory) -> dict[str, Any]:
    from heddle_registry.cli.answers import claim_json, entry_json, judged_entry_json, verdict_json

    answer: dict[str, Any] = {
        "thread": story.thread,
        "state": story.state,
        "entry": entry_json(story.entry) if story.entry is not None else None,
        "liveness": verdict_json(story.verdict),
        "claim": claim_json(story.standing),
        "others": [judged_entry_json(entry, verdict) for entry, verdict in story.others],
        "frees_when": story.frees_when or None,
        "why": list(story.sentences),
    }
    if story.error is not None:
        answer["problem"] = {"code": story.error.code, "message": story.error.message}
    return answer


def _entry_json(story: EntryStory, branch: BranchStory | None) -> dict[str, Any]:
    from heddle_registry.cli.answers import claim_json, entry_json, verdict_json

    entry = story.entry
    if branch is not None:
        answer = _branch_json(branch)
    else:
        state = "occupied" if entry.is_active else "free"
        answer = {"thread": entry.thread, "state": state, "others": [], "frees_when": None}
        answer["why"] = []
    nodes = [
        {
            "session_id": node.session_id,
            "native_actor_key": node.native_actor_key,
            "native_parent_actor_key": node.native_parent_actor_key,
            "thread": node.thread,
            "status": node.status.value,
            "provider": node.provider,
            "model": node.model,
            "harness": node.harness,
        }
        for node in story.chain
    ]
    return {
        **answer,
        "entry": entry_json(entry),
        "liveness": verdict_json(story.verdict),
        "claim": claim_json(story.standing),
        "chain": nodes,
        "rule": entry.winning_attach_rule,
        "reason": entry.attach_reason,
        "precedence": list(entry.attach_precedence),
    }


def _print_branch(story: BranchStory) -> None:
    from heddle_registry.cli.text import clean

    print(f"{clean(story.thread)} is {story.state}")
    for sentence in story.sentences:
        print(f"  {clean(sentence)}")
    if story.frees_when:
        print(f"  {clean(story.frees_when)}")
    if story.standing is not None and story.standing.state.value != "none":
        print(f"  fence {story.standing.claim.fence}")
    for entry, verdict in story.others:
        details = "; ".join(evidence.detail for evidence in verdict.evidence)
        print(f"  also there: {clean(entry.session_id)}, {verdict.kind.value}: {clean(details)}")


def _print_entry(story: EntryStory, branch: BranchStory | None) -> None:
    from heddle_registry.cli.list import who
    from heddle_registry.cli.text import clean

    entry = story.entry
    told = [
        ("branch", f"{entry.thread} ({branch.state})" if branch is not None else entry.thread),
        ("who", who(entry)),
        ("status", entry.status.value),
        ("liveness", story.verdict.kind.value),
        *(("", evidence.detail) for evidence in story.verdict.evidence),
        ("since", entry.started_at.text),
        ("ended", entry.completed_at.text if entry.completed_at is not None else ""),
        ("heartbeat", entry.heartbeat_at.text if entry.heartbeat_at is not None else ""),
        ("folder", entry.path or ""),
        ("claim", _claim_words(story)),
        ("chain", " > ".join(node.session_id for node in story.chain)),
        ("rule", entry.winning_attach_rule or ""),
        ("reason", entry.attach_reason or ""),
        *(("", line) for line in entry.attach_precedence),
    ]
    print(clean(entry.session_id))
    for name, text in told:
        if text:
            print(f"  {name:<10}{clean(text)}")


def _claim_words(story: EntryStory) -> str:
    if story.standing is None:
        return "none"
    ttl = story.standing.ttl
    left = f", {ttl.left_s:.0f} s left" if ttl is not None and not ttl.has_passed else ""
    return f"{story.standing.state.value}, fence {story.standing.claim.fence}{left}"
