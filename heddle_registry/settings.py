"""Settings from the environment, the repository's config file and the user's.

Options > environment > ``config.toml`` in the registry's folder >
``~/.config/heddle-registry/config.toml``. Where neither file is there, nothing is imported for it.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from heddle_registry.codec.config import Settings

NAME = "config.toml"
USER_FILE = os.path.join("~", ".config", "heddle-registry", NAME)
LOCK_TIMEOUT = "HEDDLE_REGISTRY_LOCK_TIMEOUT"
DEFAULT_TTL = "HEDDLE_REGISTRY_DEFAULT_TTL"
DETECTION = "HEDDLE_REGISTRY_DETECTION"
_MAX_BYTES = 1_048_576
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_SWITCH = {
    **dict.fromkeys(("1", "true", "on", "yes"), True),
    **dict.fromkeys(("0", "false", "off", "no"), False),
}


def lock_timeout_s(heddle_dir: str, option: float | None = None) -> float | None:
    """Return how long a change may wait for the lock; None: as long as it takes.

    :raises UsageError: a variable or a config file is wrong.
    """
    if option is not None:
        return option
    settings = load_settings(heddle_dir)
    return settings.lock_timeout_s if settings is not None else None


def load_settings(heddle_dir: str, environ: Mapping[str, str] | None = None) -> Settings | None:
    """Return the settings of all layers but the options; None where no layer says anything.

    :raises UsageError: a variable or a config file is wrong; names it, with the line.
    """
    environ = os.environ if environ is None else environ
    repository = os.path.join(heddle_dir, NAME)
    user = os.path.expanduser(USER_FILE)
    files = {path: _read(path) for path in (repository, user)}
    said = [name for name in (LOCK_TIMEOUT, DEFAULT_TTL, DETECTION) if environ.get(name)]
    if not said and not any(files.values()):
        return None
    from heddle_registry.codec.config import Settings, merge, settings_from_toml

    def layer(path: str) -> Settings | None:
        data = files[path]
        return settings_from_toml(data, path) if data is not None else None

    environment = Settings(
        lock_timeout_s=_number(environ, LOCK_TIMEOUT),
        default_ttl_s=_number(environ, DEFAULT_TTL),
        detection=_switch(environ, DETECTION),
    )
    return merge(environment=environment, repository=layer(repository), user=layer(user))


def _read(path: str) -> bytes | None:
    from heddle_registry.errors import UsageError

    try:
        # A FIFO in its place must not hang us. A link is allowed: people link their settings.
        fd = os.open(path, os.O_RDONLY | _FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if not os.path.lexists(path):
            return None  # a home that belongs to another user: whatever lies there is not for us
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{path} cannot be used: it is no regular file")
        data = os.read(fd, _MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path} cannot be used: it has more than {_MAX_BYTES} bytes")
    return data


def _number(environ: Mapping[str, str], name: str) -> float | None:
    from heddle_registry.errors import UsageError

    text = environ.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{name} is {text[:60]!r}", "Give it a number of seconds, or unset it")
    if name == DEFAULT_TTL:
        from heddle_registry.core.limits import check_ttl

        return check_ttl(value)
    return value


def _switch(environ: Mapping[str, str], name: str) -> bool | None:
    from heddle_registry.errors import UsageError

    text = environ.get(name)
    if not text:
        return None
    found = _SWITCH.get(text.lower())
    if found is None:
        raise UsageError(f"{name} is {text[:60]!r}", "Give it 1 or 0, or unset it")
    return found
