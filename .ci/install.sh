#!/bin/sh
# Install what a file of requirements names, and leave a stamp for make.
#   install.sh VENV REQUIREMENTS STAMP
set -eu
venv=$1
requirements=$2
stamp=$3
python=$venv/bin/python

pip() {
    sh .ci/quietly.sh "$python" -m pip --quiet --disable-pip-version-check install "$@"
}

# By uv, which takes a quarter of the time. It does not read pip's configuration: with
# an index of one's own, or where uv does not get through, it is pip.
by_uv() {
    case $("$python" -m pip config list) in *.index-url=*) return 1 ;; esac
    [ -x "$venv/bin/uv" ] || pip --no-compile uv 2>/dev/null || return 1
    "$venv/bin/uv" pip install --quiet --python "$python" -r "$requirements" 2>/dev/null
}

echo "Installing what $requirements names into $venv (once) …" >&2
if ! by_uv && ! pip -r "$requirements"; then
    echo "pip could not install what $requirements names; see above." >&2
    exit 1
fi
touch "$venv/$stamp"
