"""A process that Ctrl-C reaches.

A shell has what it starts in the background ignore SIGINT, and that is inherited: by the tests, and from them."""

import signal

HEEDING = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
