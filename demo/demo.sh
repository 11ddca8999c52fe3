#!/bin/bash
#: `make demo`: a machine without a disk boots Debian from a copy-on-write clone, is broken, and is put back. Everything runs in
#: namespaces of its own and one temporary folder: the host's network, mounts and processes stay as they are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/.." && pwd)
support=$top/tests/support
cache=$top/.cache
mac=52:54:00:12:34:56
begun=${DEMO_BEGUN:-$(date +%s%N)}

bold='' plain='' dim=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi

since() { local ns=$(($(date +%s%N) - $1)); printf '%d.%02d' $((ns / 1000000000)) $((ns / 10000000 % 100)); }
say() { printf '\n%s[%7s s] %s%s\n' "$bold" "$(since "$begun")" "$*" "$plain"; }
took() { printf '%s            took %s s%s\n' "$dim" "$(since "$1")" "$plain"; }
indent() { sed 's/^/            /'; }

# What a user would type, typed.
ctl() {
    local at; at=$(date +%s%N)
    printf '            $ bmictl %s\n' "$*"
    # What is not so (a dash) is left out here: less to read.
    bmictl "$@" </dev/null 2>&1 | sed '/^[a-z_]* *-$/d' | indent
    [ "${PIPESTATUS[0]}" = 0 ] || { echo "demo: that failed; bmid said:" >&2; tail -20 "$dir/bmid.log" >&2; exit 1; }
    took "$at"
}

# However this run ends, these end with it: what still builds, the namespaces with all that runs in them, the folder.
leave() {
    trap - EXIT; trap '' INT TERM HUP
    local job jobs guard loop
    jobs=$(jobs -p)
    # Each is a process group of its own (set -m): asked first, made to a little later.
    for job in $jobs; do kill -TERM -- "-$job" 2>/dev/null || true; done
    (sleep 15; for job in $jobs; do kill -KILL -- "-$job"; done) 2>/dev/null & guard=$!
    for job in $jobs; do wait "$job" 2>/dev/null || true; done
    kill -KILL -- -$guard; wait $guard 2>/dev/null || true
    # The datastore's mount ended with the namespaces, its loop device did not.
    for loop in $(losetup -n -O NAME,BACK-FILE | awk -v d="$dir/" 'index($2, d) == 1 { print $1 }'); do losetup -d "$loop" || true; done
    rm -rf "$dir"
}

build() {
    local at image; at=$(date +%s%N)
    say "Building bmid and bmictl; beside it, a Debian 12 golden image (both are kept for the next time)"
    "$here/golden-debian" "$cache" >"$dir/image" 2>"$dir/image.log" </dev/null &
    image=$!
    # In the background and waited for: a signal is then answered at once.
    (cd "$top" && CARGO_TARGET_DIR=target cargo build --quiet --workspace --bins && give_back) </dev/null & wait $! || { echo "demo: bmid could not be built" >&2; exit 1; }
    wait $image || { tail -20 "$dir/image.log" >&2; echo "demo: the golden image could not be made" >&2; exit 1; }
    took "$at"
    ls -lsh "$(cat "$dir/image")" | awk '{ print "            " $NF ": " $6 " disk, " $1 " of it data" }'
}

prepare() {
    [ "$(id -u)" = 0 ] || { echo "demo: this needs root, for network namespaces and a DHCP server in one: sudo make demo" >&2; exit 1; }
    . "$top/scripts/toolchain"
    "$top/scripts/packages" demo
    mkdir -p "$cache"
    # Not /tmp, which may be memory: the disks lie in there. And a short path, for sockets.
    dir=$(mktemp -d /var/tmp/bmid-demo.XXXXXX); trap leave EXIT; trap 'exit 130' INT TERM HUP
    set -m
    build
    DEMO_BEGUN=$begun unshare --net --mount --pid --fork --mount-proc --kill-child "$0" --inside "$dir" "$(cat "$dir/image")" </dev/null &
    wait $!
}

# --- from here on inside the namespaces, as their process 1

cleanup() {
    trap - EXIT; trap '' INT TERM HUP
    # The shell would tell of each process that it kills here.
    exec 2>/dev/null
    [ -z "${daemon:-}" ] || { kill "$daemon" 2>/dev/null; wait "$daemon" 2>/dev/null; } || true
    # All but this process, which is the first of its namespace.
    kill -KILL -1 2>/dev/null || true
    wait
    umount "$dir/fast" 2>/dev/null || true
}

start_bmid() {
    say "Starting bmid on an empty folder, with no configuration at all"
    local at; at=$(date +%s%N)
    "$top/target/debug/bmid" --state-dir "$dir/state" --socket "$dir/bmid.sock" 2>"$dir/bmid.log" &
    daemon=$!
    until bmictl datastore show default -f json 2>/dev/null | grep -q '"state": "active"'; do
        kill -0 $daemon 2>/dev/null || { cat "$dir/bmid.log" >&2; echo "demo: bmid ended" >&2; exit 1; }
        sleep 0.01
    done
    took "$at"
}

# Clones are instant where the file system can share blocks; else bmid makes itself one that can.
choose_datastore() {
    store=default
    if [ -e /dev/loop-control ] && ! cp --reflink=always "$0" "$dir/reflink" 2>/dev/null; then
        say "This folder's file system cannot share blocks between files: a datastore on an XFS file of our own can"
        ctl datastore create fast --path "$dir/fast" --loop 3G
        store=fast
    fi
}

power_on() {
    rm -f "$dir/serial"; : >"$dir/serial"
    "$support/machine" boot --tap tap0 --mac $mac --serial "$dir/serial" --input "$dir/keyboard" --memory 1024 --limit 600 &
    machine=$!
}

power_off() { kill $machine 2>/dev/null || true; wait $machine 2>/dev/null || true; }

expect() {
    "$support/machine" wait --serial "$dir/serial" --pid $machine --limit 240 --text "$1" && return
    echo "demo: the machine never said '$1':" >&2; "$support/machine" show "$dir/serial" | tail -30 >&2
    cat "$dir/serial.err" >&2; tail -20 "$dir/bmid.log" >&2; exit 1
}

type_in() { printf '%s\n' "$1" >"$dir/keyboard"; }

log_in() {
    expect 'login:'; type_in root
    expect 'Password:'; type_in bmi
    expect 'root@debian:.*#'
}

boot_to_login() {
    local at; at=$(date +%s%N)
    power_on
    expect 'login:'
    "$support/machine" show "$dir/serial" | grep -a -o -E 'net0: [0-9./]+$|bmid: node .*|Registered SAN.*|Loading Debian.*|^iscsistart: Logging.*|Debian GNU.*|.*login:' | indent
    took "$at"
}

main() {
    local image=$2 at
    dir=$1; trap cleanup EXIT; trap 'exit 130' INT TERM HUP
    mkdir "$dir/bin"; ln -s "$top/target/debug/bmictl" "$dir/bin/bmictl"
    export PATH=$dir/bin:$PATH BMI_SOCKET=$dir/bmid.sock NO_COLOR=1
    mkfifo "$dir/keyboard"
    mount -t tmpfs tmpfs /run
    ip link set lo up
    ip tuntap add tap0 mode tap; ip link set tap0 up

    start_bmid
    choose_datastore
    say "A network: nodes on interface tap0 boot from this engine"
    ctl network create demo --interface tap0 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150
    say "The golden image"
    ctl image import "$image" --name debian --format raw --datastore $store
    say "A machine gets its disk: a clone, an iSCSI target, an address, a boot script"
    ctl node provision web1 --image debian --mac $mac --network demo

    say "Powering on an emulated PC with one network card and no disk"
    boot_to_login
    say "It runs. What bmid knows about it:"
    ctl node show web1
    say "Somebody works on it ..."
    log_in
    type_in 'echo "three weeks of work" >/root/precious; sync; findmnt -no SOURCE,FSTYPE,SIZE /; echo NO""TED'
    expect '^NOTED'
    "$support/machine" show "$dir/serial" | sed -n '/precious/,/^NOTED/p' | indent
    say "... and the disk is tagged while it runs"
    ctl tag create web1 good --force

    say "Now the disk is broken: rm -rf of /boot, /usr and /root"
    # No program is left to sync or shut down with: the kernel is asked to write what it has, and to power off.
    type_in 'rm -rf /boot /root /usr; for k in s u; do echo $k >/proc/sysrq-trigger; read -t 2; done; echo GO""NE; echo o >/proc/sysrq-trigger'
    expect '^GONE'; wait $machine || true
    at=$(date +%s%N); power_on
    # Nothing is left to load: GRUB stands at its own prompt.
    expect 'grub>'
    "$support/machine" show "$dir/serial" | grep -a -E 'Registered SAN|GNU GRUB|grub>' | indent
    power_off; took "$at"

    say "Rolled back to the tag"
    ctl tag rollback web1 good --force --yes
    say "Powering on again"
    boot_to_login
    log_in
    type_in 'cat /root/precious; echo RE""AD'; expect '^READ'
    "$support/machine" show "$dir/serial" | grep -a '^three weeks of work' | indent || { echo "demo: the work is gone" >&2; exit 1; }
    power_off

    say "What happened, as bmid recorded it"
    ctl event ls
    say "The machine goes: tag, target, disk and boot script are taken away"
    ctl tag rm web1 good --yes
    ctl node deprovision web1 --force --yes
    ctl node ls
    say "Done. Nothing is left on this host but $cache"
}

if [ "${1:-}" = --inside ]; then main "$2" "$3"; else prepare; fi
