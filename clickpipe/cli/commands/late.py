"""List and show late records, and give them back for another try.

    clickpipe late ls                  pipelines that have some, and where they are
    clickpipe late show NAME           by reason and window, how late they were, and the newest
    clickpipe late reprocess NAME      the records without what clickpipe has added, on standard output

NAME is a pipeline, or the path of a file that --late named. Nothing is taken out of it: give a pipeline that reads
them a name of its own. A record is as the steps before the window have left it; its own fields are as they came.
"""

from __future__ import annotations

from clickpipe.cli.sides import side_command
from clickpipe.store.sides import LATE

_EPILOG = """\
Examples:
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --time ts --name c | window tumble 1m | sink /tmp/minutes.ndjson" &&
    clickpipe late ls && clickpipe late show c --rows 2
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --time ts --name c | window tumble 1m | sink /tmp/minutes.ndjson" &&
    clickpipe late reprocess c | clickpipe ingest - --time ts --max-out-of-orderness 1d --name again |
    clickpipe window tumble 1d | clickpipe aggregate n='count(*)' | clickpipe sink -"""

command = side_command(LATE, __doc__, _EPILOG)
