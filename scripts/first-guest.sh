#!/usr/bin/env bash
# Builds the guest of the release before protocol generation 2, which workspaces that were made then still run, from this
# repository's own history. Usage: first-guest.sh TARGET-TRIPLE OUTPUT. Without that history it says so and makes nothing.
set -euo pipefail
target=$1
output=$2
release=e6cbeb91600325da76282ce07d343339a09bea37
[ ! -x "$output" ] || exit 0
git cat-file -e "$release^{commit}" 2>/dev/null || {
    echo "first guest: this clone lacks the commit $release; the case that needs it will be skipped" >&2
    exit 0
}
tree=$(mktemp --directory)
trap 'rm -rf "$tree"' EXIT
git archive "$release" | tar --extract --directory "$tree"
# In a folder of its own: cargo tells two trees in one folder apart by nothing but their files' times.
RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --locked --manifest-path "$tree/Cargo.toml" \
    --target-dir "$tree/target" -p emergent-guest --target "$target"
mkdir -p "$(dirname "$output")"
install -m 0755 "$tree/target/$target/debug/emergent-guest" "$output"
