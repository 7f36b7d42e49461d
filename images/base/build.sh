#!/usr/bin/env bash
# Builds the base image of workspaces: from the Dockerfile where its base can be pulled, else from Debian's packages
# with debootstrap. Usage: build.sh IMAGE. BASE_IMAGE_EXTRA_PACKAGES adds packages, such as "nodejs npm".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=$1
extra=${BASE_IMAGE_EXTRA_PACKAGES:-}
PATH=$PATH:/usr/sbin:/sbin

say() { echo "base image: $*" >&2; }

from_dockerfile() {
    say "building $image from the Dockerfile"
    docker build --quiet --build-arg EXTRA_PACKAGES="$extra" --tag "$image" "$here" >/dev/null
}

from_debian_packages() {
    if [ "$(id -u)" -ne 0 ]; then
        say "ubuntu:22.04 cannot be pulled, and debootstrap needs root. Run this as root, or set WORKSPACE_DEFAULT_IMAGE."
        exit 1
    fi
    say "ubuntu:22.04 cannot be pulled; building $image from Debian's packages (about a minute)"
    "$here/../../scripts/install-packages.sh" debootstrap
    local tree
    tree=$(mktemp --directory)
    # shellcheck disable=SC2064 # the tree of now
    trap "rm -rf --one-file-system '$tree'" EXIT
    # shellcheck disable=SC2046,SC2086 # lists of words
    debootstrap --variant=minbase --include="$(echo $(cat "$here/packages") $extra | tr ' ' ',')" bookworm "$tree" >"$tree.log" 2>&1 || {
        tail -n 20 "$tree.log" >&2
        say "debootstrap failed; the whole log is $tree.log"
        exit 1
    }
    rm -f "$tree.log"
    chroot "$tree" useradd --create-home --uid 1000 --shell /bin/bash agent
    install -d -o 1000 -g 1000 "$tree/workspace"
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
    tar --directory "$tree" --create . | docker import --change 'WORKDIR /workspace' - "$image" >/dev/null
}

if timeout 120 docker pull --quiet ubuntu:22.04 >/dev/null 2>&1; then
    from_dockerfile
else
    from_debian_packages
fi
say "$image is ready"
