#!/bin/sh
# Run a command, and show what it printed only if it fails. Ctrl-C leaves nothing behind.
#   quietly.sh COMMAND [ARGUMENT...]
set -eu
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if "$@" >"$log" 2>&1; then
    exit 0
fi
cat "$log" >&2
exit 1
