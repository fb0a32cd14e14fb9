"""Run a verb again inside the lab's network: `python run_again.py CHECKOUT invoke ARGUMENTS…`.

Same as .venv/bin/invoke, but Ctrl-C during its imports exits silently. It uses `_signal` because
importing `signal` takes too long.
"""

import _signal  # type: ignore[import-not-found]  # typeshed does not know it
import sys

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
sys.path[0] = sys.argv[1]
del sys.argv[:2]

from invoke.main import program  # noqa: E402  (after the path and Ctrl-C)

program.run()
