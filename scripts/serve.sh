#!/usr/bin/env bash
# Leaves a server running for use, until Ctrl-C. Usage: serve.sh FOLDER-OF-PROGRAMS
set -euo pipefail
bin=$1

cat >&2 <<TEXT

The server listens on http://${EMERGENT_LISTEN:-127.0.0.1:7070} until Ctrl-C. In another terminal, as the same user:

    $bin/emergent workspace create --name first
    $bin/emergent workspace exec first -- echo hello
    $bin/emergent workspace rm first

The API is described at /docs and /openapi.json.

TEXT
ENABLE_AGENT_WORKSPACES=true exec "$bin/emergent" serve
