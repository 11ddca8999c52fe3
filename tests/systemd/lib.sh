#!/bin/bash
#: Sourced by the scripts that run inside the test's systemd. A script ends at its first failure and says which line.
set -eu
trap 'echo "FAILED: $0 line $LINENO: $BASH_COMMAND" >&2' ERR
set -E
export NO_COLOR=1

# Waits until a command succeeds, at most a minute: what another process does takes as long as it takes.
eventually() {
    local n
    for n in $(seq 600); do if "$@" >/dev/null 2>&1; then return 0; fi; sleep 0.1; done
    echo "never came true: $*" >&2; return 1
}

property() { systemctl show -p "$2" --value "$1"; }
is() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'" >&2; return 1; }; }

# The users and folders that the packages' triggers make on a real host.
prepare() { systemd-sysusers; systemd-tmpfiles --create; systemctl daemon-reload; }

in_use() { bmictl datastore show default -f json | grep -q '"state": "active"'; }

# A network on an interface of our own, and an image to clone.
fill() {
    eventually in_use
    ip tuntap add br0 mode tap
    ip link set br0 up
    bmictl network create lab --interface br0 --address 10.9.0.1/24 >&2
    truncate -s 64M /root/disk.raw; printf golden | dd of=/root/disk.raw conv=notrunc status=none
    bmictl image import /root/disk.raw --name golden --format raw >&2
    bmictl node provision n1 --image golden --mac 52:54:00:12:34:56 --network lab >&2
}
