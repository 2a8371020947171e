"""The marks by which coding-agent programs are recognised: a table, one row a harness.

``tier`` "verified": seen on the real program. Without it: from documents and other detectors.

| key | what it holds |
|---|---|
| ``strong`` | variables set only for what the agent runs |
| ``session`` | variables that hold a session's, thread's or agent's id |
| ``programs`` | exact base name of the executable, of argv[0], or of an interpreter's script |
| ``launchers``, ``workers`` | programs that start the harness proper, or that it starts |
| ``paths`` | shell patterns over a whole path: binaries named by their version, packed scripts |
| ``worker_paths`` | the same for programs that the harness starts |
| ``ai_agent`` | names in AI_AGENT, whole or cut at the first "@" or "_" |
| ``files`` | files that exist only where the agent runs |
| ``weak``, ``weak_programs`` | seen where a person types, too: they never decide |
| ``configuration`` | the user's settings: they never decide |
| ``aliases`` | other names of it, as hooks are wired with |
| ``actor_kind`` | what its actors are called in keys, if not "session" |
| ``pid`` | variables that hold the harness's process id |
| ``marks`` | what else the harness leaves to its children; `scrub_env` takes it out |
| ``transcripts`` | folders that only this harness keeps its transcripts in |
| ``fork_of`` | harnesses that this one is a fork of: it is looked at before them |

A variable is written NAME (anything but 0, false, no, off, none, null, blank), NAME=value (exactly
that), NAME^=start, NAME*=part, and NAME+OTHER where both must be set.

Python and not TOML, because a hook that waits for the table would wait for a parser first.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

HARNESSES: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "claude-code",
        "tier": "verified",
        "transcripts": ("/.claude/projects/",),
        "aliases": ("claude",),
        "strong": ("CLAUDE_CODE_CHILD_SESSION",),
        "ai_agent": ("claude-code",),
        "session": ("CLAUDE_CODE_SESSION_ID", "CLAUDE_CODE_REMOTE_SESSION_ID"),
        "programs": ("claude", "claude-code"),
        "paths": ("*/claude/versions/[0-9]*.[0-9]*.[0-9]*", "*/@anthropic-ai/claude-code/cli.js"),
        "weak": (
            "CLAUDECODE=1",
            "CLAUDE_CODE",
            "CLAUDE_CODE_ENTRYPOINT",
            "CLAUDE_CODE_EXECPATH",
            "CLAUDE_CODE_SSE_PORT",
        ),
        "pid": ("CLAUDE_PID",),
        "marks": (
            "CLAUDECODE",
            "CLAUDE_CODE",
            "CLAUDE_CODE_ENTRYPOINT",
            "CLAUDE_CODE_EXECPATH",
            "CLAUDE_CODE_SESSION_ATTENDED",
            "CLAUDE_CODE_CHILD_NOTES_DIR",
            "CLAUDE_CODE_MESSAGING_SOCKET",
            "CLAUDE_CODE_MESSAGING_TOKEN",
            "CLAUDE_ENV_FILE",
            "CLAUDE_PROJECT_DIR",
            "CLAUDE_CODE_SSE_PORT",
        ),
    },
    {
        "name": "codex",
        "tier": "verified",
        "transcripts": ("/.codex/sessions/",),
        "actor_kind": "thread",
        "strong": ("CODEX_CI", "CODEX_SANDBOX", "CODEX_SANDBOX_NETWORK_DISABLED"),
        "ai_agent": ("codex",),
        "session": ("CODEX_THREAD_ID", "CODEX_SESSION_ID"),
        "programs": ("codex",),
        "workers": ("codex-linux-sandbox",),
        "paths": ("*/@openai/codex/bin/codex.js", "*/codex-x86_64-*", "*/codex-aarch64-*"),
        "weak": ("CODEX_MANAGED_BY_NPM", "CODEX_MANAGED_PACKAGE_ROOT"),
        "marks": (
            "CODEX_TOOL_CALL_ID",
            "CODEX_VERSION",
            "CODEX_APPLY_PATCH_PRESERVE_LINE_ENDINGS",
            "CODEX_MANAGED_BY_NPM",
            "CODEX_MANAGED_PACKAGE_ROOT",
            "CODEX_PERMISSION_PROFILE",
            "CODEX_NETWORK_PROXY_ACTIVE",
        ),
    },
    {
        "name": "opencode",
        "tier": "verified",
        "strong": ("OPENCODE=1", "OPENCODE_PID", "AGENT=opencode"),
        "ai_agent": ("opencode",),
        "session": ("OPENCODE_SESSION_ID",),
        "programs": ("opencode",),
        "configuration": (
            "OPENCODE_CLIENT",
            "OPENCODE_BIN_PATH",
            "OPENCODE_SERVER",
            "OPENCODE_APP_INFO",
            "OPENCODE_MODES",
        ),
        "pid": ("OPENCODE_PID",),
        "marks": ("OPENCODE", "OPENCODE_TERMINAL", "OPENCODE_WORKSPACE_ID"),
    },
    {
        "name": "gemini-cli",
        "tier": "verified",
        "transcripts": ("/.gemini/tmp/",),
        "aliases": ("gemini",),
        "strong": ("GEMINI_CLI=1",),
        "ai_agent": ("gemini-cli", "gemini"),
        "session": ("GEMINI_SESSION_ID",),
        "launchers": ("gemini",),
        "paths": ("*/@google/gemini-cli/dist/index.js", "*/@google/gemini-cli/bundle/gemini.js"),
        "weak": ("GEMINI_CLI_NO_RELAUNCH",),
        "marks": (
            "GEMINI_CLI",
            "GEMINI_CLI_NO_RELAUNCH",
            "GEMINI_PROJECT_DIR",
            "GEMINI_CWD",
            "GEMINI_PLANS_DIR",
        ),
    },
    {
        "name": "qwen-code",
        "tier": "verified",
        "transcripts": ("/.qwen/projects/",),
        "aliases": ("qwen",),
        "fork_of": ("gemini-cli",),
        "strong": ("QWEN_CODE=1",),
        "ai_agent": ("qwen-code", "qwen"),
        "session": ("QWEN_CODE_SESSION_ID", "QWEN_CODE_AGENT_ID"),
        "launchers": ("qwen",),
        "worker_paths": ("*/@qwen-code/qwen-code/cli.js", "*/@qwen-code/qwen-code/dist/cli.js"),
        "weak": ("QWEN_CODE_NO_RELAUNCH", "QWEN_CODE_STARTUP_VERSION"),
        "pid": ("QWEN_CODE_LAUNCHER_PID",),
        "marks": (
            "QWEN_CODE",
            "QWEN_CODE_PROMPT_ID",
            "QWEN_CODE_MODEL_IDENTITY",
            "QWEN_CODE_PROJECT_DIR",
            "QWEN_CODE_CLI",
            "QWEN_CODE_STARTUP_VERSION",
            "QWEN_CODE_NO_RELAUNCH",
            "QWEN_CODE_MANAGED_NPM_PIN",
            "QWEN_CODE_MANAGED_NPM_ROOT",
            "QWEN_CODE_PRIVATE_RELAUNCH_ENV_PROVENANCE",
            "QWEN_CODE_MESSAGING_SOCKET",
            "QWEN_CODE_MESSAGING_TOKEN",
            "QWEN_PROJECT_DIR",
        ),
    },
    {
        "name": "copilot-cli",
        "tier": "verified",
        "transcripts": ("/.copilot/session-state/",),
        "aliases": ("copilot",),
        "strong": ("COPILOT_CLI=1",),
        "ai_agent": ("copilot-cli", "copilot"),
        "session": ("COPILOT_AGENT_SESSION_ID",),
        "programs": ("copilot",),
        "configuration": ("COPILOT_MODEL", "COPILOT_ALLOW_ALL", "COPILOT_GITHUB_TOKEN"),
        "marks": (
            "COPILOT_CLI",
            "COPILOT_CLI_BINARY_VERSION",
            "COPILOT_CLI_RESOLVED_DIST_DIR",
            "COPILOT_PROJECT_DIR",
            "COPILOT_HOOK_DIR",
        ),
    },
    {
        "name": "aider",
        "tier": "verified",
        "programs": ("aider",),
        "weak": ("OR_APP_NAME=Aider",),
        "configuration": ("AIDER_API_KEY", "AIDER_MODEL"),
    },
    # unverified
    {
        "name": "claude-cowork",
        "fork_of": ("claude-code",),
        "strong": ("CLAUDE_CODE_IS_COWORK",),
    },
    {
        "name": "codebuddy",
        "fork_of": ("claude-code",),
        "strong": ("CODEBUDDY",),
        "session": ("CODEBUDDY_SESSION_ID",),
        "programs": ("codebuddy",),
        "weak": ("CODEBUDDY_PROJECT_DIR",),
    },
    {
        "name": "cursor",
        "strong": (
            "CURSOR_AGENT",
            "CURSOR_SANDBOX",
            "CURSOR_EXTENSION_HOST_ROLE=agent-exec",
            "PAGER=head -n 10000 | cat+CURSOR_TRACE_ID",
        ),
        "ai_agent": ("cursor", "cursor-agent"),
        "programs": ("cursor-agent",),
        "weak": ("CURSOR_TRACE_ID", "CURSOR_CLI"),
    },
    {
        "name": "iflow",
        "fork_of": ("gemini-cli",),
        "strong": ("IFLOW_CLI",),
        "programs": ("iflow",),
    },
    {
        "name": "vecli",
        "fork_of": ("gemini-cli",),
        "strong": ("VECLI_DIR", "VECLI_SANDBOX"),
    },
    {
        "name": "amp",
        "strong": ("AGENT=amp", "AMP_ORB"),
        "ai_agent": ("amp",),
        "session": ("AMP_CURRENT_THREAD_ID", "AMP_THREAD_ID", "AGENT_THREAD_ID"),
        "actor_kind": "thread",
        "programs": ("amp",),
        "marks": ("AGENT_TOOL_NAME", "AGENT_TOOL_USE_ID"),
    },
    {
        "name": "crush",
        "strong": ("CRUSH=1", "AGENT=crush"),
        "ai_agent": ("crush",),
        "session": ("CRUSH_SESSION_ID",),
        "programs": ("crush",),
        "marks": ("CRUSH_EVENT", "CRUSH_TOOL_NAME", "CRUSH_CWD", "CRUSH_PROJECT_DIR"),
    },
    {
        "name": "goose",
        "strong": ("GOOSE_TERMINAL", "AGENT=goose"),
        "ai_agent": ("goose",),
        "weak_programs": ("goose",),
        "configuration": ("GOOSE_PROVIDER",),
    },
    {
        "name": "copilot-cloud",
        "strong": ("COPILOT_AGENT",),
        "session": ("COPILOT_AGENT_JOB_ID",),
    },
    {
        "name": "copilot-vscode",
        "strong": ("VSCODE_AGENT",),
        "ai_agent": ("github_copilot_vscode_agent",),
    },
    {
        "name": "augment",
        "strong": ("AUGMENT_AGENT=1",),
        "session": ("AUGMENT_CONVERSATION_ID",),
        "programs": ("auggie",),
    },
    {
        "name": "cline",
        "strong": ("CLINE_ACTIVE",),
        "session": ("CLINE_TASK_ID",),
        "programs": ("cline",),
    },
    {
        "name": "roo",
        "fork_of": ("cline",),
        "strong": ("ROO_ACTIVE", "ROO_CLI_RUNTIME"),
        "session": ("ROO_CODE_TASK_ID",),
        "configuration": ("ROO_CODE_IPC_SOCKET_PATH",),
    },
    {
        "name": "kilo",
        "fork_of": ("opencode", "roo"),
        "strong": ("KILOCODE_FEATURE=cli", "KILO=1"),
        "programs": ("kilo",),
        "weak": ("KILO_PID",),
    },
    {
        "name": "antigravity",
        "strong": ("ANTIGRAVITY_AGENT",),
        "weak": (
            "ANTIGRAVITY_CLI_ALIAS",
            "ANTIGRAVITY_PROJECT_ID",
            "ANTIGRAVITY_EXECUTABLE_DATA_DIR",
        ),
    },
    {
        "name": "pi",
        "strong": ("PI_CODING_AGENT",),
        "session": ("PI_SESSION_ID",),
        "weak_programs": ("pi",),
        "weak": ("PATH*=.pi/agent",),
    },
    {
        "name": "oh-my-pi",
        "fork_of": ("pi",),
        "session": ("OMP_SESSION_ID",),
        "weak_programs": ("omp",),
    },
    {
        "name": "kiro",
        "strong": ("KIRO_AGENT_PATH", "AGENT_CONTEXT_OUT+AGENT_DISPLAY_OUT"),
        "programs": ("kiro-cli",),
        "weak": ("TERM_PROGRAM=kiro",),
    },
    {
        "name": "amazon-q",
        "strong": ("AWS_EXECUTION_ENV*=AmazonQ-For-CLI",),
        "weak_programs": ("q",),
    },
    {
        "name": "junie",
        "strong": ("JUNIE_SHIM_PATH",),
        "configuration": ("JUNIE_DATA",),
    },
    {
        "name": "devin",
        "files": ("/opt/.devin",),
        "programs": ("devin",),
        "weak": ("EDITOR*=devin",),
    },
    {
        "name": "replit",
        "strong": ("REPLIT_MODE=assistant+REPL_ID",),
        "weak": ("REPL_ID",),
    },
    {
        "name": "windsurf",
        "strong": ("WINDSURF_CASCADE_TERMINAL",),
        "configuration": ("CODEIUM_EDITOR_APP_ROOT",),
    },
    {
        "name": "trae",
        "strong": ("TRAE_AI_SHELL_ID",),
        "weak_programs": ("trae",),
    },
    {
        "name": "firebender",
        "strong": ("FIREBENDER_TERMINAL",),
    },
    {
        "name": "openclaw",
        "strong": ("OPENCLAW_SHELL=exec",),
        "programs": ("openclaw",),
    },
    {
        "name": "hermes",
        "strong": ("HERMES_AGENT=true",),
        "session": ("HERMES_SESSION_ID",),
        "weak_programs": ("hermes",),
    },
    {
        "name": "grok",
        "strong": ("GROK_AGENT=1",),
        "session": ("GROK_SESSION_ID",),
        "weak_programs": ("grok",),
        "weak": ("GROK_PLUGIN_ROOT",),
    },
    {
        "name": "kimi",
        "programs": ("kimi", "kimi-cli"),
        "weak": ("KIMI_PLUGIN_ROOT",),
    },
    {
        "name": "deepseek-harness",
        "strong": ("DSH_SHELL=1",),
        "weak": ("DSH_SESSION_ID",),
    },
    {
        "name": "openhands",
        "strong": ("PS1*=###PS1JSON###", "PROMPT_COMMAND*=###PS1JSON###"),
        "ai_agent": ("openhands",),
    },
    {
        "name": "warp",
        "session": ("OZ_RUN_ID",),
        "weak": ("TERM_PROGRAM=WarpTerminal",),
    },
    {
        "name": "zed",
        "weak": ("ZED_TERM", "TERM_PROGRAM=zed"),
    },
    {
        "name": "vtcode",
        "strong": ("VTCODE=1",),
    },
    {
        "name": "jules",
        "strong": ("USER=swebot+HOME",),
    },
    {
        "name": "bolt",
        "strong": ("SHELL=/bin/jsh",),
    },
    {
        "name": "mistral-vibe",
        "session": ("VIBE_SESSION_ID",),
        "weak_programs": ("vibe",),
    },
    {
        "name": "v0",
        "ai_agent": ("v0",),
    },
    {
        "name": "autohand",
        "strong": ("AUTOHAND_CLI",),
    },
    {
        "name": "astrbot",
        "weak": ("ASTRBOT_CLI",),
    },
    {
        "name": "droid",
        "weak_programs": ("droid",),
    },
    {
        "name": "octofriend",
        "programs": ("octofriend",),
        "weak_programs": ("octo",),
    },
    {
        "name": "continue",
        "weak": ("CONTINUE_SESSION_ID",),
    },
    # Orchestrators start harnesses and are none: their marks name a pane or a job, never who types.
    {
        "name": "gas-town",
        "weak": ("BD_ACTOR", "GT_AGENT"),
    },
    {
        "name": "agent-deck",
        "weak": ("AGENTDECK_TOOL", "AGENTDECK_INSTANCE_ID"),
    },
    {
        "name": "orca",
        "weak": (
            "ORCA_PANE_KEY+ORCA_TAB_ID",
            "ORCA_PANE_KEY+ORCA_WORKTREE_ID",
            "ORCA_TERMINAL_HANDLE+ORCA_TAB_ID",
            "ORCA_TERMINAL_HANDLE+ORCA_WORKTREE_ID",
        ),
    },
    {
        "name": "agent-mail",
        "weak": ("AGENT_NAME",),
    },
    {
        "name": "paseo",
        "weak": ("PASEO_AGENT_ID",),
        "weak_programs": ("paseo",),
    },
    {
        "name": "agi-cli",
        "weak": ("AGENT_LAUNCH_ID", "AGENT_SESSION_ID", "AGENT_TERMINAL_ID"),
    },
)
