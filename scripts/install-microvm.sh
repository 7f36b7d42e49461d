#!/usr/bin/env bash
# What the microVM suite needs besides Docker: QEMU, the tools for file systems, and a kernel, which is downloaded as a
# package and not installed. Usage: install-microvm.sh DIRECTORY
set -euo pipefail

directory=${1:?the directory that the kernel is kept in}
scripts=$(dirname "$(readlink --canonicalize "$0")")
"$scripts/install-packages.sh" qemu-system-x86:qemu-system-x86_64 qemu-utils:qemu-img e2fsprogs:mkfs.ext4 xz-utils:xz zstd:zstd

mkdir --parents "$directory"
compgen -G "$directory/linux-image-*.deb" >/dev/null && exit 0
package=$(apt-cache depends linux-image-cloud-amd64 | sed --quiet 's/^ *Depends: \(linux-image-.*\)/\1/p' | head --lines=1)
if [ -z "$package" ]; then
    apt-get update >/dev/null
    package=$(apt-cache depends linux-image-cloud-amd64 | sed --quiet 's/^ *Depends: \(linux-image-.*\)/\1/p' | head --lines=1)
fi
echo "Downloading $package" >&2
work=$(mktemp --directory)
trap 'rm --recursive --force "$work"' EXIT
(cd "$work" && apt-get download --quiet "$package" >/dev/null 2>&1)
mv "$work"/linux-image-*.deb "$directory/"
