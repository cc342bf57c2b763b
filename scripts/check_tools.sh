#!/bin/sh
# Says which tool is missing and how to get it; silent when all is there.
python=${PYTHON:-python3}
missing=0

need() {
    echo "bascule needs $1" >&2
    echo "    $2" >&2
    missing=1
}

if ! command -v "$python" >/dev/null 2>&1; then
    need "Python 3.11 or newer, and found no '$python'." \
        "Debian: apt-get install python3 python3-venv; or set PYTHON=/path/to/python3.11"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    need "Python 3.11 or newer, and '$python' is $("$python" -V 2>&1)." \
        "Set PYTHON=/path/to/a/newer/python3"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    need "Python's venv module." "Debian: apt-get install python3-venv"
fi
if ! command -v cc >/dev/null 2>&1 && ! command -v gcc >/dev/null 2>&1; then
    need "a C linker (cc)." "Debian: apt-get install gcc libc6-dev; macOS: xcode-select --install"
fi
if ! command -v cargo >/dev/null 2>&1; then
    need "Rust's cargo, 1.88 or newer." "rustup.rs explains how; Debian: apt-get install rustup"
else
    version=$(cargo --version | cut -d' ' -f2)
    minor=$(echo "$version" | cut -d. -f2)
    if [ "$(echo "$version" | cut -d. -f1)" -eq 1 ] && [ "$minor" -lt 88 ]; then
        need "cargo 1.88 or newer, and found $version." "rustup update stable"
    fi
fi
exit $missing
