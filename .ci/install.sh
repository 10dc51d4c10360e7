#!/bin/sh
# Install what a file of requirements names, and leave a stamp for make.
#   install.sh VENV REQUIREMENTS STAMP
set -eu
venv=$1
requirements=$2
stamp=$3

echo "Installing what $requirements names into $venv (once) …" >&2
if ! sh .ci/quietly.sh "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -r "$requirements"; then
    echo "pip could not install what $requirements names; see above." >&2
    exit 1
fi
touch "$venv/$stamp"
