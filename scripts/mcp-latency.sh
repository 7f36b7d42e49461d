#!/usr/bin/env bash
# What a bridge costs: sequential echo calls to the fixture, directly on stdio, through our bridge, and through two others.
#
#   scripts/mcp-latency.sh [ROUNDS [NAME=URL …]]
#
# With further endpoints (MCP_AUTHORIZATION is sent to the one called `hosted`) those are measured in the same run. A row
# of `make bench` calls this.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=$("$root/scripts/mcp-clients/install.sh")
(cd "$root" && cargo build --quiet --release --locked --bin emergent-mcp-fixture --example serve)
target=${CARGO_TARGET_DIR:-$root/target}/release
fixture=$target/emergent-mcp-fixture

logs=$(mktemp -d) started=()
cleanup() {
    for one in "${started[@]}"; do kill -INT "$one" 2>/dev/null || true; done
    for one in "${started[@]}"; do wait "$one" 2>/dev/null || true; done
    rm -rf "$logs"
}
trap cleanup EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
answers() {
    for _ in $(seq 200); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    echo "nothing listens on $1" >&2
    cat "$logs"/* >&2
    exit 1
}
ours=$(free_port) gateway=$(free_port) proxy=$(free_port)
"$target/examples/serve" "127.0.0.1:$ours" "$fixture" >"$logs/ours" 2>&1 &
started+=($!)
node "$cache/node_modules/supergateway/dist/index.js" --stdio "$fixture" --outputTransport streamableHttp --stateful \
    --port "$gateway" --logLevel none >"$logs/gateway" 2>&1 &
started+=($!)
"$cache/py-proxy/bin/mcp-proxy" --port "$proxy" "$fixture" >"$logs/proxy" 2>&1 &
started+=($!)
for port in "$ours" "$gateway" "$proxy"; do answers "$port"; done
rounds=${1:-10}
shift || true
node "$cache/latency.mjs" "$rounds" "$@" "our bridge=http://127.0.0.1:$ours/mcp" \
    "npm supergateway, stateful=http://127.0.0.1:$gateway/mcp" "PyPI mcp-proxy=http://127.0.0.1:$proxy/mcp" -- "$fixture"
