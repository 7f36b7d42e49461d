#!/usr/bin/env bash
# Makes what microVMs boot: a kernel, unless there is one, and a root file system with the guest in it. Takes the
# options of `emergent image build`, such as --from; without that it is the image of workspaces, which `make setup` makes.
# KERNEL_FROM names a kernel of your own instead of Debian's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
emergent=$("$here/find-emergent.sh")
base=${WORKSPACE_FIRECRACKER_DIR:-${FIRECRACKER_DIR:-/var/lib/firecracker-workspaces}}
if [ -n "${KERNEL_FROM:-}" ]; then
    "$emergent" kernel import --base "$base" --from "$KERNEL_FROM"
elif [ -z "$(ls -A "$base/kernels" 2>/dev/null)" ]; then
    "$emergent" kernel import --base "$base"
fi
case " $* " in *" --from"*) ;; *) set -- --from emergent/workspace:latest "$@" ;; esac
exec "$emergent" image build --base "$base" "$@"
