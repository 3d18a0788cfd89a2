#!/usr/bin/env bash
# Try the edge on an emulated ARM processor: bundles, edits, the one-file form (checks.py) and tests/kb.
#
#     tests/arm64/run.sh [ARGUMENTS OF PYTEST]      by default: tests/kb without the tests marked slow
#
# CPU is neoverse-n1 (Graviton2) or cortex-a72 (Raspberry Pi 4). SUITE is bookworm (Python 3.11) or trixie (3.13).
# What is downloaded is kept in .arm64. No privileges are needed, and no binfmt_misc.
set -euo pipefail
cd "$(dirname "$0")/../.."
CPU=${CPU:-neoverse-n1}
SUITE=${SUITE:-bookworm}
HOST=.venv/bin/python
HOME_=$PWD/.arm64
ROOT=$HOME_/$SUITE

skip() {
    echo "test-arm64: skipped: $*"
    exit 0
}

qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) && command -v mmdebstrap >/dev/null ||
    skip "qemu-aarch64 or mmdebstrap is missing; on Debian: apt-get install qemu-user-static mmdebstrap"

# Debian's Python. Without /proc/cpuinfo of an ARM processor, onnxruntime ends in a segmentation fault.
mkdir -p "$HOME_"
if [ ! -d "$ROOT" ]; then
    rm -rf "$ROOT.part"
    mmdebstrap --quiet --variant=extract --architectures=arm64 --include=python3,libstdc++6 "$SUITE" "$ROOT.part" ||
        skip "mmdebstrap cannot make an arm64 root of Debian $SUITE (see above)"
    rm -rf "$ROOT.part/dev" "$ROOT.part/tmp" # so that those of this machine are used
    mkdir -p "$ROOT.part/proc"
    mv "$ROOT.part" "$ROOT"
fi
features='fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs'
case $CPU in
    neoverse-n1) part=0xd0c ;;
    cortex-a72) part=0xd08 features='fp asimd evtstrm crc32 cpuid' ;;
    *) echo "CPU=$CPU: expected neoverse-n1 or cortex-a72" >&2 && exit 2 ;;
esac
printf 'processor\t: %s\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: %s\nCPU revision\t: 1\n\n' \
    0 "$features" $part 1 "$features" $part >"$ROOT/proc/cpuinfo"

# The wheels, at the versions of constraints.txt.
python=$(basename "$(readlink "$ROOT/usr/bin/python3")")
site=$HOME_/$python-$(cat constraints.txt tests/arm64/run.sh | sha256sum | cut -c1-12)
if [ ! -d "$site" ]; then
    rm -rf "$site.part"
    platforms=$(printf -- '--platform manylinux_2_%s_aarch64 ' 17 24 27 28)
    # shellcheck disable=SC2086
    $HOST -m pip install --quiet --quiet --target "$site.part" --only-binary=:all: $platforms --python-version "${python#python}" \
        --no-compile --constraint constraints.txt numpy onnxruntime usearch tokenizers click \
        onnx cryptography hypothesis pytest pytest-timeout pytest-xdist
    ln -s ../.. "$site.part/reaugkd"
    mv "$site.part" "$site"
fi

# A program that this machine can start, so that tests can start it as sys.executable.
emulated=$HOME_/$python
cat >"$emulated" <<END
#!/bin/sh
export PYTHONPATH="$site:$PWD/tests" PYTHONPYCACHEPREFIX="$HOME_/pycache"
exec "$qemu" -cpu $CPU -L "$ROOT" -0 "\$0" "$ROOT/usr/bin/python3" "\$@"
END
chmod +x "$emulated"

"$emulated" -c 'import platform, sys; print("test-arm64:", platform.machine(), "'$CPU',", "Python", *sys.version.split()[:1])'
rm -rf "$HOME_/work"
mkdir "$HOME_/work"
PYTHONPATH=tests $HOST tests/arm64/checks.py "$HOME_/work" make answer
"$emulated" tests/arm64/checks.py "$HOME_/work" answer compare
PYTHONPATH=tests $HOST tests/arm64/checks.py "$HOME_/work" compare
[ $# -gt 0 ] || set -- tests/kb -m "not slow" --deselect tests/kb/index/test_usearch_import.py::test_threads_that_load_it_at_once_do_not_meet
"$emulated" -m pytest -q -p no:cacheprovider -n "${WORKERS:-2}" "$@"
