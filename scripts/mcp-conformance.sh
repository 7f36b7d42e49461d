#!/usr/bin/env bash
# Runs the official MCP conformance suite, in three editions, against an endpoint that serves the test fixture.
#
#   scripts/mcp-conformance.sh URL            all editions
#   scripts/mcp-conformance.sh --local        starts the fixture behind the bridge on this machine, and stops it again
#   scripts/mcp-conformance.sh --local-shared the same with one process for all sessions
#
# MCP_AUTHORIZATION is sent with every request, where the endpoint asks for a token. Nothing is expected to fail. The
# suite is installed once, from its lockfile, into .cache/mcp-conformance.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
pins=$root/scripts/mcp-conformance
cache=${MCP_CONFORMANCE_CACHE:-$root/.cache/mcp-conformance}
url=${1:?usage: $0 URL | --local | --local-shared}

command -v npm >/dev/null || "$root/scripts/install-packages.sh" nodejs:node npm:npm

mkdir -p "$cache"
# Several may run at once: one installs, and each has its own results.
exec 9>"$cache/.lock"
flock 9
if ! cmp -s "$pins/package-lock.json" "$cache/package-lock.json" || [ ! -e "$cache/.installed" ]; then
    mkdir -p "$cache"
    cp "$pins/package.json" "$pins/package-lock.json" "$cache/"
    (cd "$cache" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    touch "$cache/.installed"
fi
flock --unlock 9
results=$(mktemp --directory)
# The suite needs Node 22, which many machines do not have: it comes as a package, too.
node=$(ls "$cache"/node_modules/node-linux-*/bin/node 2>/dev/null | head -1)
node=${node:-node}

server=
cleanup() { rm -rf "$results"; [ -z "$server" ] || { kill -INT "$server" 2>/dev/null && wait "$server" || true; }; }
trap cleanup EXIT
if [[ $url == --local* ]]; then
    sharing=
    [ "$url" = --local ] || sharing=--shared
    (cd "$root" && cargo build --quiet --locked --workspace --bin emergent-mcp-fixture --example serve)
    log=$(mktemp)
    target=${CARGO_TARGET_DIR:-$root/target}/debug
    "$target/examples/serve" $sharing 127.0.0.1:0 "$target/emergent-mcp-fixture" >"$log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        url=$(sed -n 's/^listening on //p' "$log")
        [ -n "$url" ] && break
        sleep 0.1
    done
    [ -n "$url" ] || { cat "$log"; exit 1; }
fi

failed=0
# edition, package, expected number of scenarios, further arguments
run() {
    local name=$1 package=$2 expected=$3; shift 3
    local out=$results/$name
    mkdir -p "$out"
    "$node" --import "$pins/authorize.mjs" "$cache/node_modules/$package/dist/index.js" server --url "$url" --suite all "$@" -o "$out" \
        >"$out/output.txt" 2>&1 || true
    local passed all
    passed=$(grep -c '^✓ ' "$out/output.txt" || true)
    all=$(grep -cE '^[✓✗] ' "$out/output.txt" || true)
    echo "$name: $passed of $all scenarios passed (expected $expected of $expected)"
    if [ "$passed" != "$expected" ] || [ "$all" != "$expected" ]; then
        failed=1
        sed -n '/SUMMARY/,$p' "$out/output.txt"
    fi
}
run 0.1.16 mcp-conformance-stable 32
run 0.2.0-alpha.12-2025-11-25 mcp-conformance-alpha 33 --spec-version 2025-11-25
run 0.2.0-alpha.12-2026-07-28 mcp-conformance-alpha 40 --spec-version 2026-07-28
exit $failed
