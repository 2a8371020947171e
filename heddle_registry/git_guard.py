"""Whether a branch that git is about to change is another's.

It is while a claim is held, or was lost by somebody who may still write, unless the claim's token
is shown. An expired claim keeps nobody else away; its bearer may go on.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from heddle_registry.registry import AgentRegistry


def refusal(registry: AgentRegistry, branch: str, token: str | None) -> str | None:
    """Return why the bearer of ``token`` may not change ``branch``; None where it may.

    :raises RegistryError: the registry, or the branch's claim, cannot be read.
    """
    from heddle_registry.core.limits import check_thread
    from heddle_registry.core.renew import judge_token
    from heddle_registry.errors import Held, UsageError
    from heddle_registry.explain import why_branch

    try:
        check_thread(branch)
    except UsageError:
        return None  # too long a name to be claimed
    story = why_branch(registry, branch)
    if story.error is not None:
        raise story.error
    standing = story.standing
    if standing is None or not standing.excludes_others:
        return None
    if token and standing.is_valid and judge_token(standing.claim, token) is None:
        return None
    held = Held(
        branch, why="; ".join(story.sentences), frees_when=story.frees_when, state=story.state
    )
    return f"{held.explain()}. This change of it is refused"
