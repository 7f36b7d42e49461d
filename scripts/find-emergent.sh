#!/usr/bin/env bash
# Prints the path of the program `emergent`: the one that EMERGENT_BIN names, else the one that `make build` makes, else
# the one on PATH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for program in "${EMERGENT_BIN:-}" "${CARGO_TARGET_DIR:-$here/../target}/release/emergent" "$(command -v emergent || true)"; do
    if [ -n "$program" ] && [ -x "$program" ]; then
        realpath "$program"
        exit 0
    fi
done
echo "There is no program emergent. Build it with \`make build\`, or name it in EMERGENT_BIN." >&2
exit 1
