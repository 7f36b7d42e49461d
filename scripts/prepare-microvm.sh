#!/usr/bin/env bash
# What the suites and benchmarks of microVMs boot: a kernel and a root file system, with the guest that is beside the
# program. Usage: prepare-microvm.sh DIRECTORY-OF-PROGRAMS DIRECTORY
set -euo pipefail

programs=${1:?the directory of the programs}
directory=${2:?the directory that kernels and roots are kept in}
scripts=$(dirname "$(readlink --canonicalize "$0")")
"$scripts/install-microvm.sh" "$directory"
"$programs/emergent" kernel import --base "$directory" --from "$directory"/linux-image-*.deb
"$programs/emergent" image build --base "$directory" --from emergent/workspace:latest --size 4
