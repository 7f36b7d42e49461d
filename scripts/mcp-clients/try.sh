#!/usr/bin/env bash
# The four official SDK clients against one endpoint: try.sh URL TOOL ARGUMENTS EXPECTED
#
# Each connects, lists the tools, and calls one, whose answer must contain EXPECTED. MCP_AUTHORIZATION is sent where the
# endpoint asks for a token. What they need is installed first.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=$("$here/install.sh")
failed=0
for client in "npm sdk 1.x|node $cache/sdk-v1.mjs" "npm client 2.x|node $cache/client-v2.mjs" \
    "PyPI mcp <2|$cache/py-v1/bin/python $here/python_v1.py" "PyPI mcp 2.x|$cache/py-v2/bin/python $here/python_v2.py"; do
    # What a client warns of does not matter while it works.
    if said=$(timeout 60 ${client#*|} "$@" 2>&1); then
        echo "ok    ${client%%|*}: $(tail -1 <<<"$said")"
    else
        echo "FAIL  ${client%%|*}"
        tail -20 <<<"$said"
        failed=1
    fi
done
exit $failed
