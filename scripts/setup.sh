#!/usr/bin/env bash
# Prepares this host for microVMs: Firecracker, its directories, access to /dev/kvm. Takes the options of
# `emergent firecracker setup`, such as --dry-run, --user NAME or --from FILE. The program is the one that EMERGENT_BIN
# names, else the one that `make build` makes, else the one on PATH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
emergent=$("$here/find-emergent.sh")
# What the set-up looks for; it tells what is missing where this is not Debian or Ubuntu.
case " $* " in
*" --dry-run "* | *" --help "*) ;;
*) [ "$(id -u)" -ne 0 ] || "$here/install-packages.sh" acl:setfacl e2fsprogs:mkfs.ext4 nftables:nft || true ;;
esac
exec "$emergent" firecracker setup "$@"
