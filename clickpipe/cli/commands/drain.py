"""End running pipelines as if their input ended here: windows close, results are complete.

A pipeline that was drained has come to its end; `ingest --reset` begins it anew. To go on later, stop it instead.
Exit code 75: one still runs when the time is over. What runs without checkpoints is not known here.
"""

from __future__ import annotations

import signal

from clickpipe.cli.ending import ending

_EPILOG = """\
Examples:
  clickpipe drain --all"""

command = ending("drain", __doc__, _EPILOG, signal.SIGUSR1)
