#!/usr/bin/env bash
# Builds the base image of workspaces: from the Dockerfile where its base can be pulled, else from Debian's packages
# with debootstrap. Usage: build.sh IMAGE. An image that was built of the same contents stays as it is; one that somebody
# else made under that name does, too. BASE_IMAGE_EXTRA_PACKAGES adds packages, such as "golang".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=$1
extra=${BASE_IMAGE_EXTRA_PACKAGES:-}
PATH=$PATH:/usr/sbin:/sbin
label=org.opencontainers.image.revision
contents=base-$( (cat "$here"/{Dockerfile,build.sh,packages,prepare.sh}; echo "$extra") | sha256sum | cut --characters=1-16)

say() { echo "base image: $*" >&2; }

# Built of these contents, or made by somebody else, who put no such label on it.
is_current() {
    local found
    found=$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$image" 2>/dev/null) || return 1
    [ "$found" = "$contents" ] || [[ $found != base-* ]]
}

from_dockerfile() {
    say "building $image from the Dockerfile"
    docker build --quiet --build-arg EXTRA_PACKAGES="$extra" --build-arg CONTENTS="$contents" --tag "$image" "$here" >/dev/null
}

from_debian_packages() {
    if [ "$(id -u)" -ne 0 ]; then
        say "ubuntu:22.04 cannot be pulled, and debootstrap needs root. Run this as root, or set WORKSPACE_DEFAULT_IMAGE."
        exit 1
    fi
    say "ubuntu:22.04 cannot be pulled; building $image from Debian's packages (about two minutes)"
    "$here/../../scripts/install-packages.sh" debootstrap:debootstrap
    local tree log
    tree=$(mktemp --directory)
    log=$(mktemp)
    # shellcheck disable=SC2064 # the paths of now
    trap "rm -rf --one-file-system '$tree' '$log'" EXIT
    # debootstrap alone does not resolve the dependencies of npm; apt, inside, does.
    {
        debootstrap --variant=minbase --include=ca-certificates bookworm "$tree" &&
            chroot "$tree" apt-get update &&
            # shellcheck disable=SC2046,SC2086 # lists of words
            DEBIAN_FRONTEND=noninteractive chroot "$tree" apt-get install --yes --no-install-recommends $(cat "$here/packages") $extra &&
            chroot "$tree" sh <"$here/prepare.sh"
    } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        say "the image could not be built; the last lines of its log are above"
        exit 1
    }
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/cache/apt/*.bin "$tree"/var/lib/apt/lists/*
    tar --directory "$tree" --create . | docker import --change "LABEL $label=$contents" --change 'WORKDIR /workspace' \
        --change 'ENV PATH=/home/agent/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$image" >/dev/null
}

if is_current; then exit 0; fi
if timeout 120 docker pull --quiet ubuntu:22.04 >/dev/null 2>&1; then
    from_dockerfile
else
    from_debian_packages
fi
say "$image is ready"
