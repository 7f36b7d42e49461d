#!/usr/bin/env bash
# Leaves a server running for use, until Ctrl-C. Usage: serve.sh FOLDER-OF-PROGRAMS
set -euo pipefail
bin=$1

cat >&2 <<TEXT

The server listens on http://${EMERGENT_LISTEN:-127.0.0.1:7070} until Ctrl-C. In another terminal, as the same user:

    export PATH=$bin:\$PATH${EMERGENT_DATA_DIR:+ EMERGENT_DATA_DIR=$EMERGENT_DATA_DIR}
    emergent workspace create --name first
    emergent workspace exec first -- ls -la
    emergent workspace rm first

The command line finds this server by itself. For curl: eval "\$(emergent env)" sets EMERGENT_SERVER and EMERGENT_TOKEN.

The API is described at /docs and /openapi.json.

TEXT
ENABLE_AGENT_WORKSPACES=true exec "$bin/emergent" serve
