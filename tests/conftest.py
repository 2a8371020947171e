"""For every test: Hypothesis measures no time, and no program starts deaf to signals."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# What is ignored here stays ignored in every program that a test starts, and a job in the
# background or under nohup ignores these. A handler that does nothing is not passed on.
for name in ("SIGINT", "SIGHUP"):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)
