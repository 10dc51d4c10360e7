#!/usr/bin/env python3
"""worker.py: take one message at a time, and complete it.

    python worker.py

See --help for what it simulates. batch_worker.py takes many at a time.
"""

import sys

from working import work, worker_parser

if __name__ == "__main__":
    given = worker_parser(__doc__).parse_args()
    sys.exit(work(given, 1, "one at a time"))
