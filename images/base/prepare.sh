#!/bin/sh
# Runs inside the base image once its packages are there: the agent's account, and package managers that work for it.
set -eu

useradd --create-home --uid 1000 --shell /bin/bash agent
install -d -o agent -g agent /workspace

# A workspace is its agent's own. The marker keeps pip out of a Python that an administrator looks after.
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
# Where pip puts the agent's programs, too; the image's PATH begins with its bin.
install -d -o agent -g agent /home/agent/.local /home/agent/.local/bin
echo 'prefix=/home/agent/.local' >/home/agent/.npmrc
chown agent:agent /home/agent/.npmrc
