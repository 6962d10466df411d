#!/usr/bin/env bash
# Everything that needs a GPU, in one command, off-line, in less than nine minutes:
#
#     benchmarks/gpu_check.sh OUT [tests] [sanitizer] [train] [bench]
#
# installs this checkout, with the packages that python3 has, into a folder that is thrown away;
# runs the parts named, or all; and writes OUT/gpu_check.json and OUT/gpu_check.md with what came of
# each: passed, failed, or NOT RUN and why. The logs lie beside them. The exit status is 0 only if
# nothing failed. FASTNN_MNIST names the folder with MNIST's IDX files; without it the accuracy is
# not checked, and the benchmarks use synthetic images. Options behind the parts go to gpu_check.py.
# PYTHON is the Python to use instead of python3; GPU_CHECK_PYTHON is one that has the checkout
# installed: then nothing is.
set -uo pipefail

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then
    echo "usage: $0 OUT [tests] [sanitizer] [train] [bench]" >&2
    exit 2
fi
if ! { mkdir -p "$1" && out=$(cd "$1" && pwd); }; then exit 2; fi
shift
if [ -n "${FASTNN_MNIST:-}" ]; then
    FASTNN_MNIST=$(realpath -m "$FASTNN_MNIST") && export FASTNN_MNIST
fi
cd "$(dirname "$0")/.." || exit 2
base=${PYTHON:-python3}
if ! work=$(mktemp -d); then exit 2; fi
trap 'rm -rf "$work"' EXIT
# Off-line, and of no one else's cache.
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
export FASTNN_CACHE_DIR=${FASTNN_CACHE_DIR:-$work/cache}

pip_install() { timeout 60 "$python" -m pip install --no-build-isolation --no-deps "$@"; }

in_environment() {
    "$base" -m venv --system-site-packages --without-pip "$work/venv" || return
    python=$work/venv/bin/python
    # If python3 belongs to an environment, the packages of that one, which a new one does not see.
    "$base" - "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" <<'PY' || return
import sys
import sysconfig
from pathlib import Path

folders = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
lines = [f"import site; site.addsitedir({folder!r})\n" for folder in folders]
Path(sys.argv[1], "packages_of_python3.pth").write_text("".join(lines))
PY
    pip_install -e . && pip_install ./tests/pocket
}

in_folder() {
    python=$base
    mkdir "$work/source" "$work/site" || return
    cp -r pyproject.toml README.md LICENSE MANIFEST.in fastnn kernels tests/pocket "$work/source" || return
    # setuptools before 77 knows no licence by its name.
    sed -i -e '/^license-files/d' -e 's/^license = .*/license = { text = "MIT" }/' "$work/source/pyproject.toml"
    pip_install --target "$work/site" "$work/source" "$work/source/pocket" || return
    export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
}

if [ -n "${GPU_CHECK_PYTHON:-}" ]; then
    python=$GPU_CHECK_PYTHON how="nothing: $GPU_CHECK_PYTHON is taken to have it"
elif in_environment >"$out/install.log" 2>&1; then
    how="into an environment of its own"
elif in_folder >>"$out/install.log" 2>&1; then
    how="into a folder on PYTHONPATH; no environment could be made"
else
    python=$base how="FAILED; what follows uses the checkout as it lies: see install.log"
    export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
fi
echo "installed: $how"

# The limit on all of it is kept within; this one is for the case that it is not.
timeout --kill-after=5 $((538 - SECONDS)) \
    "$python" benchmarks/gpu_check.py "$out" --installed "$how" --seconds $((522 - SECONDS)) "$@"
