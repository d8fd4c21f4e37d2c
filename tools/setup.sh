#!/bin/sh
# Sets up everything a job needs: system packages (through apt, if some are missing and we may),
# then a virtual environment in this checkout. Called by the Makefile; safe to call again.
# With the word `browser`, the browser alone that the report's test looks at the page with.
set -eu
cd "$(dirname "$0")/.."
venv=.venv

# Each system package with what it is for:
#   python3-venv         the virtual environment
#   libpython3.11        the interpreter as a library, which the simulators load
#   perl make g++        Verilator's front end, and building what it generates
#   ccache               builds the same simulator only once
#   iverilog             the second simulator
#   ngspice              simulates the gain cell's and the converter's transistors
#   qflow-tech-osu018    the OSU 0.18 um standard-cell library
#   opensta              static timing of netlists
packages="python3-venv libpython3.11 perl make g++ ccache iverilog ngspice qflow-tech-osu018 opensta"

missing=""
# Not needed by any job, and a download of 100 MB, so on request only:
#   chromium-headless-shell  takes the picture of the report page
#   fonts-dejavu-core        letters and signs on it
[ "${1:-}" != browser ] || packages="chromium-headless-shell fonts-dejavu-core"
if command -v dpkg-query >/dev/null 2>&1; then
    for package in $packages; do
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
        [ "$status" = "install ok installed" ] || missing="$missing $package"
    done
else
    for program in perl make g++ iverilog ngspice sta; do
        command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
    done
fi

if [ -n "$missing" ]; then
    run=""
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then run="sudo -n"; else run=no; fi
    fi
    if [ "$run" = no ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "Missing system packages. As root: apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    echo "Installing system packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    $run apt-get update -q
    # shellcheck disable=SC2086
    $run apt-get install -q -y --no-install-recommends $missing
fi

[ "${1:-}" != browser ] || exit 0

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; python3 is $(python3 --version 2>&1)" >&2
    exit 1
fi

# A link of an older checkout or a half-made environment is no use: make it anew.
if ! "$venv/bin/python" -c '' 2>/dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv"
fi
pip="$venv/bin/python -m pip --disable-pip-version-check --no-input -q"
echo "Installing Python packages into $venv"
$pip install -c requirements/constraints.txt -e '.[dev,llm]'
$pip install --no-deps --use-pep517 -r requirements/data.txt
touch "$venv/.ready"
