#!/bin/sh
# Make the virtual environment with what is in requirements.txt.
#   setup.sh PYTHON VENV
set -eu
python=$1
venv=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$python" --version 2>&1) || found="no $python"
    echo "Python 3.11 or later is needed, and here is $found." >&2
    echo "Name another: make demo PYTHON=python3.12" >&2
    exit 1
fi

rm -rf "$venv"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian and Ubuntu ship these apart.
    package=$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing $package with apt-get …" >&2
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -q --no-install-recommends "$package"; } >/dev/null
    else
        echo "$python has no venv module. Install it: sudo apt-get install $package" >&2
        exit 1
    fi
fi

echo "Making $venv …" >&2
sh .ci/quietly.sh "$python" -m venv "$venv"
sh .ci/install.sh "$venv" requirements.txt ready
