#!/usr/bin/env python3
"""batch_worker.py: take a batch of messages, handle them concurrently.

    python batch_worker.py

As soon as some are done it takes as many new ones. worker.py takes one.
"""

import sys

from working import work, worker_parser

if __name__ == "__main__":
    parser = worker_parser(__doc__)
    parser.add_argument(
        "--batch",
        type=int,
        default=50,
        help="how many messages to handle at the same time, 1 to 500",
    )
    given = parser.parse_args()
    if not 1 <= given.batch <= 500:
        parser.error("--batch is from 1 to 500")
    sys.exit(work(given, given.batch, f"{given.batch} at a time"))
