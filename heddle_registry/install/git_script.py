"""The guard's hook: a shell script, so that a commit on a free branch starts no Python. Pure.

It asks Python only where the registry may know a claim on a branch that changes: the branch's file
in ``claims`` names a holder, or, where that file is missing, a living entry bears a fence.
"""

from __future__ import annotations

from typing import Final

HOOK: Final = "reference-transaction"
ASIDE: Final = ".before-heddle"
"""What the name of a hook that was there before gets at its end."""
_MADE: Final = "# Folders made for this file: "
_MANY: Final = 3
_BEGIN: Final = "# >>> heddle-registry: guard of reserved branches >>>"
_END: Final = "# <<< heddle-registry <<<"

_BODY: Final = r"""
# Written by `heddle-registry install git`; `heddle-registry install git --remove` takes it out.

unset CDPATH
updates=
if [ -x "$0.before-heddle" ]; then
  updates=$(cat)
  if [ -n "$updates" ]; then printf '%s\n' "$updates"; fi | "$0.before-heddle" "$@" || exit $?
fi
[ "$1" = prepared ] || exit 0

branches=
count=0
note() {
  case $3 in
  refs/heads/*)
    # Zeros on both sides are a deletion that names no old value.
    case $1$2 in *[!0]*) [ "$1" != "$2" ] || return ;; esac
    branches="$branches${3#refs/heads/}
"
    count=$((count + 1))
    ;;
  esac
}
if [ -x "$0.before-heddle" ]; then
  while read -r old new ref; do note "$old" "$new" "$ref"; done <<UPDATES
$updates
UPDATES
else
  while read -r old new ref; do note "$old" "$new" "$ref"; done
fi
[ "$count" -gt 0 ] || exit 0

if [ -z "$registry" ]; then
  if [ -d .heddle ]; then
    registry=.heddle
  else
    common=$(git rev-parse --git-common-dir 2>/dev/null) || exit 0
    common=$(cd "$common" && pwd) || exit 0
    case $common in
    */.git) registry=${common%/.git}/.heddle ;;
    *) registry=$common/.heddle ;;
    esac
  fi
fi
[ -d "$registry" ] || exit 0

# Whether somebody may hold the branch $1. It names a claim's file by a hash.
doubtful() {
  case $1 in *\"*) return 0 ;; esac
  [ -x "$registry/claims" ] || [ ! -e "$registry/claims" ] || return 0
  digest=$(printf %s "$1" | { sha256sum || shasum -a 256; } 2>/dev/null) || return 0
  digest=${digest%% *}
  claim=$registry/claims/${digest%????????????????????????????????}.toml
  if [ -e "$claim" ]; then
    grep -q '^fence *=' "$claim" 2>/dev/null || return 0
    grep -q '^\[holder' "$claim" 2>/dev/null
    return
  fi
  [ -d "$registry/agents" ] || return 1
  (
    cd "$registry/agents" || exit 0
    set -- "$1" *.toml
    [ $# -lt 2000 ] || exit 0
    branch=$1
    shift
    named=$(grep -lsF -e "thread = \"$branch\"" "$@") || exit 1
    grep -qs '^fence *=' $named
  )
}
if [ "$count" -le 8 ] && [ -r "$registry" ] && [ -x "$registry" ]; then
  suspects=
  while read -r branch; do
    if [ -n "$branch" ] && doubtful "$branch"; then
      suspects="$suspects$branch
"
    fi
  done <<BRANCHES
$branches
BRANCHES
  [ -n "$suspects" ] || exit 0
  branches=$suspects
fi

# The words of the git command that started us, one a line.
caller() {
  { tr '\0' '\n' <"/proc/$PPID/cmdline" || ps -o args= -p "$PPID" | tr ' ' '\n'; } 2>/dev/null
}
subcommand() {
  read -r program
  while read -r word; do
    case $word in
    -c | -C | --git-dir | --work-tree | --namespace | --config-env) read -r value ;;
    -*) ;;
    *)
      echo "$word"
      return
      ;;
    esac
  done
}
# Packing rewrites refs and changes none; what it tells us looks like a deletion.
command=$(caller | subcommand)
case $command in pack-refs | refs) exit 0 ;; esac

# 5 means refused.
printf %s "$branches" | ask
case $? in
0) exit 0 ;;
5) exit 1 ;;
esac
echo "heddle-registry: the guard could not look; this change passes unguarded" >&2
exit 0
"""


def guard_script(ask: str, registry: str, *, made_folders: int) -> str:
    """Return the hook.

    :param ask: the shell command that checks the branches on its stdin
    :param registry: the registry's folder, quoted for a shell; empty where it lies beside the main
        worktree, or in the worktree itself
    :param made_folders: how many folders are made for it
    """
    head = [
        "#!/bin/sh",
        _BEGIN,
        *([f"{_MADE}{made_folders}"] if made_folders else []),
        f"registry={registry}",
        f'ask() {{ {ask} "$registry"; }}',
    ]
    return "\n".join(head) + _BODY + _END + "\n"


def is_guard(text: str) -> bool:
    """Return whether a hook is the guard, whoever changed it since."""
    return _BEGIN in text and _END in text


def is_pure_guard(text: str) -> bool:
    """Return whether a hook is the guard and nothing else."""
    _, _, after = text.partition(_END)
    return text.startswith(f"#!/bin/sh\n{_BEGIN}\n") and not after.strip()


def folders_made(text: str) -> int:
    """Return how many folders were made for the guard."""
    number = text.partition(_MADE)[2].partition("\n")[0]
    return int(number) if number.isdecimal() and len(number) < _MANY else 0
