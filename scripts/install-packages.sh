#!/usr/bin/env bash
# Installs Debian packages that are missing, and checks afterwards that each is there. Usage:
#     install-packages.sh PACKAGE[:PROGRAM]...
# A PROGRAM that is named with its package has to run, too. All packages are named in one transaction that removes
# nothing. Where a newer version of one of them is installed, from the backports for one, the release's versions may have to
# take its place; and where that cannot be either, all of them come from the backports, read for this one transaction.
set -euo pipefail

packages=()
programs=()
for wanted in "$@"; do
    packages+=("${wanted%%:*}")
    [[ $wanted != *:* ]] || programs+=("${wanted#*:}")
done

# The packages that are not installed, and the programs that do not run.
lacking() {
    local package program status
    for package in "${packages[@]}"; do
        dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null |
            grep --quiet --line-regexp installed || echo "$package"
    done
    for program in ${programs[@]+"${programs[@]}"}; do
        status=0
        timeout 30 "$program" --version >/dev/null 2>&1 </dev/null || status=$?
        # Not found, or not able to start. Whatever else a program says of --version, it runs.
        case $status in 126 | 127) echo "$program" ;; esac
    done
}

# Programs of administrators live in sbin, which an unprivileged PATH lacks.
PATH=$PATH:/usr/sbin:/sbin
missing=$(lacking)
[ -n "$missing" ] || exit 0
missing=${missing//$'\n'/ }

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "Missing: $missing. Install them with your package manager, or run this as root on Debian or Ubuntu." >&2
    exit 1
fi
echo "Installing $missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
sources=$(mktemp --directory)
trap 'rm --recursive --force "$log" "$sources"' EXIT

transaction() {
    apt-get "$@" >"$log" 2>&1
}

install=(install --yes --no-install-recommends --no-remove)

# A newer version of one of them, from elsewhere, may stand in the way of the others: all of them as the release has them.
transaction_of_the_release() {
    local codename=''
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || return 1
    echo "Trying again with the versions of $codename, also where a newer one is installed" >&2
    transaction "${install[@]}" --allow-downgrades "${packages[@]/%//$codename}"
}

# Reads the backports from where the release itself comes from.
transaction_with_backports() {
    local codename='' mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    codename=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || return 1
    mirror=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $codename" "Component: main" "Identifier: Packages" | head --lines=1)
    [ -n "$mirror" ] || return 1
    echo "Trying again with the backports of $codename" >&2
    [ ! -d /etc/apt/sources.list.d ] || cp --recursive /etc/apt/sources.list.d/. "$sources"
    echo "deb [signed-by=$keyring] $mirror $codename-backports main" >"$sources/backports-of-this-transaction.list"
    apt-get --option "Dir::Etc::SourceParts=$sources" update >/dev/null 2>&1 || true
    transaction --option "Dir::Etc::SourceParts=$sources" --target-release "$codename-backports" "${install[@]}" "${packages[@]}"
}

# The package lists may be missing or out of date.
ordinary() { transaction "${install[@]}" "${packages[@]}"; }
ordinary || { apt-get update >/dev/null 2>&1 || true; ordinary; } || transaction_of_the_release || transaction_with_backports || {
    tail -n 15 "$log" >&2
    echo "apt-get could not install $missing beside what is there; its last words are above." >&2
    exit 1
}
missing=$(lacking)
[ -z "$missing" ] || { echo "Still missing after the installation: ${missing//$'\n'/ }" >&2; exit 1; }
