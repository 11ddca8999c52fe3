#!/bin/bash
#: `make install` over a release that runs, and `make uninstall`: a machine works on its disk all the while.
. /test/lib.sh
prepare
systemctl enable --now bmid.socket bmid.service 2>/dev/null
fill
# What the next release is made of; its program differs from the old one's by a byte at its end.
mkdir /src/bin
cp /usr/local/sbin/bmid /usr/local/bin/bmictl /src/bin/
printf x >>/src/bin/bmid
field() { bmictl node show n1 -f json | sed -n "s/^ *\"$1\": \"\(.*\)\",*/\1/p"; }
sessions() { bmictl node show n1 -f json | tr -d ' \n' | grep -o '"sessions":\[[^]]*\]'; }
logged_in() { sessions | grep -q '\[{'; }
iscsi-perf -i "$(field initiator)" -b 8 -m 4 -t 600 "iscsi://$(field portal)/$(field iqn)/1" >/root/perf.log 2>&1 &
machine=$!
eventually logged_in
before=$(sessions)
all_workers() { pgrep -x tgtd; pgrep -x dnsmasq; pgrep -f -- ' --boot-files '; }
workers=$(all_workers)
everything() { find /var/lib/bmid/datastore -type f -exec sha256sum {} + | sort; bmictl volume ls -f json; bmictl image ls -f json; }
disks=$(everything)
pid=$(property bmid MainPID)

BIN=bin /src/scripts/install >/root/install.log
cmp /src/bin/bmid /usr/local/sbin/bmid
# Files only: the old release runs on, from the program it was started with.
is "$(property bmid MainPID)" "$pid"
is "$(bmictl status -f json >/dev/null && echo answers)" answers
systemctl daemon-reload
systemctl restart bmid.service
cmp /src/bin/bmid "/proc/$(property bmid MainPID)/exe"
is "$(all_workers)" "$workers"
is "$(sessions)" "$before"
kill -0 $machine
is "$(everything)" "$disks"
is "$(bmictl reconcile --check -f json | tr -d ' \n')" '[]'

systemctl disable --now bmid.socket bmid.service 2>/dev/null
/src/scripts/install --remove >/root/remove.log
is "$(find /usr/local -type f)" ''
# Still nobody is cut off: the workers end with the host, or when they are stopped.
is "$(all_workers)" "$workers"
kill -0 $machine
kill $machine
