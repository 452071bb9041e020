"""Stop running pipelines after a last checkpoint, with windows left open.

The same line, or the same recipe, goes on from there. Exit code 75: one still runs when the time is over.
What runs without checkpoints is not known here: end it with Ctrl-C.
"""

from __future__ import annotations

import signal

from clickpipe.cli.ending import ending

_EPILOG = """\
Examples:
  clickpipe stop --all"""

command = ending("stop", __doc__, _EPILOG, signal.SIGTERM)
