#!/usr/bin/env bash
# Makes this host able to run workspaces: a Docker Engine that answers, the base image, and gVisor as its runtime
# "runsc". What is there already is left as it is. Debian and Ubuntu, as root; elsewhere it says what to install.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=${WORKSPACE_DEFAULT_IMAGE:-emergent/workspace:latest}
daemon_json=/etc/docker/daemon.json
# The daemon lives in sbin, which an unprivileged PATH lacks.
PATH=$PATH:/usr/sbin:/sbin

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }
docker_answers() { docker info >/dev/null 2>&1; }

await_docker() {
    for _ in $(seq 120); do docker_answers && return; sleep 0.5; done
    fail "Docker was started and does not answer. Its log: journalctl -u docker, or /var/log/dockerd.log."
}

start_docker() {
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        say "starting dockerd (log: /var/log/dockerd.log)"
        setsid --fork dockerd >/var/log/dockerd.log 2>&1 </dev/null
    fi
    await_docker
}

install_docker() {
    command -v docker >/dev/null && docker_answers && return
    [ -z "${DOCKER_HOST:-}" ] || fail "DOCKER_HOST is $DOCKER_HOST and does not answer. Start that engine, or unset it."
    [ "$(uname -s)" = Linux ] || fail "Docker does not answer. Start Docker Desktop."
    [ "$(id -u)" -eq 0 ] || fail "Docker does not answer. Start it, or run this as root to have it installed."
    command -v dockerd >/dev/null || "$here/install-packages.sh" docker.io:dockerd
    start_docker
}

install_base_image() {
    "$here/../images/base/build.sh" "$image"
}

runsc_works() {
    docker info --format '{{json .Runtimes}}' | grep --quiet '"runsc"' &&
        timeout 30 docker run --rm --runtime=runsc --network=none "$image" true >/dev/null 2>&1
}

# Names the runtime in daemon.json, beside whatever else is there, and has the daemon read it again.
register_runsc() {
    mkdir -p "$(dirname "$daemon_json")"
    python3 - "$daemon_json" "$(command -v runsc)" "$@" <<'PYTHON'
import json, os, sys
path, runsc, *arguments = sys.argv[1:]
config = json.load(open(path)) if os.path.exists(path) and os.path.getsize(path) else {}
config.setdefault("runtimes", {})["runsc"] = {"path": runsc, "runtimeArgs": arguments}
with open(path + ".new", "w") as file:
    json.dump(config, file, indent=2)
os.replace(path + ".new", path)
PYTHON
    kill -HUP "$(cat /var/run/docker.pid)"
    for _ in $(seq 20); do
        docker info --format '{{json .Runtimes}}' | grep --quiet '"runsc"' && return
        sleep 0.25
    done
}

install_runsc_package() {
    command -v runsc >/dev/null && return
    "$here/install-packages.sh" runsc:runsc 2>/dev/null && return
    # Ubuntu has no such package; gVisor's own repository does.
    "$here/install-packages.sh" curl:curl gnupg:gpg ca-certificates
    local keyring=/usr/share/keyrings/gvisor-archive-keyring.gpg
    curl --fail --silent --show-error --location https://gvisor.dev/archive.key | gpg --dearmor --yes --output "$keyring" &&
        echo "deb [arch=$(dpkg --print-architecture) signed-by=$keyring] https://storage.googleapis.com/gvisor/releases release main" \
            >/etc/apt/sources.list.d/gvisor.list &&
        apt-get update >/dev/null && "$here/install-packages.sh" runsc:runsc
}

install_runsc() {
    runsc_works && return
    if [ "$(uname -s)" != Linux ] || [ "$(id -u)" -ne 0 ] || [ ! -e /var/run/docker.pid ]; then
        say "gVisor (runsc) is not registered with this Docker; workspaces run on the standard runtime, which is weaker."
        return
    fi
    install_runsc_package || { say "gVisor could not be installed; workspaces run on the standard runtime, which is weaker."; return; }
    # Best platform first. Old releases know only ptrace, and on new kernels need the container's own network stack.
    local candidate
    for candidate in "--platform=systrap" "--platform=ptrace" "--platform=ptrace --network=host"; do
        # shellcheck disable=SC2086 # the candidate is several arguments
        register_runsc $candidate
        if runsc_works; then
            say "gVisor works with: runsc $candidate"
            return
        fi
    done
    say "runsc is installed but starts no container here; 'emergent doctor' says more. Workspaces need WORKSPACE_GVISOR_RUNTIME=runc until it does."
}

install_docker
if [ "$(uname -s)" = Linux ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    "$here/install-packages.sh" nftables:nft python3:python3
fi
install_base_image
install_runsc
