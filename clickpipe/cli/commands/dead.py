"""List and show dead letters, the bad records, and give them back for another try.

    clickpipe dead ls                  pipelines that have some, and where they are
    clickpipe dead show NAME           how many there are for each reason, and the newest
    clickpipe dead reprocess NAME      the lines as they came, on standard output, for another pipeline

NAME is a pipeline, or the path of a file that --dead-letter named. Nothing is taken out of it: give a pipeline that
reads them a name of its own. A line of CSV comes without its header. A letter keeps at most 64 KiB of a line; of longer
ones, and of lines that were no UTF-8, the whole is not to be had: they are left out, and counted.
"""

from __future__ import annotations

from clickpipe.cli.sides import side_command
from clickpipe.store.sides import DEAD

_EPILOG = """\
Examples:
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --time ts --name c | filter 'latency_ms > 9' | sink /tmp/slow.ndjson" &&
    clickpipe dead ls && clickpipe dead show c --rows 2
  clickpipe run -c "ingest sample_data/access.log --format combined --name a | filter 'status >= 500' | sink -" &&
    clickpipe dead reprocess a --to /tmp/no-log-lines.txt"""

command = side_command(DEAD, __doc__, _EPILOG)
