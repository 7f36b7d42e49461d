#!/usr/bin/env bash
# Installs Debian packages that are missing. Usage: install-packages.sh PACKAGE...
set -euo pipefail

missing=()
for package in "$@"; do
    dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep --quiet --line-regexp installed ||
        missing+=("$package")
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "Missing: ${missing[*]}. Install them with your package manager, or run this as root on Debian or Ubuntu." >&2
    exit 1
fi
echo "Installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
    # The package lists may be missing or out of date.
    apt-get update >/dev/null
    apt-get install --yes --no-install-recommends "${missing[@]}" >/dev/null
}
