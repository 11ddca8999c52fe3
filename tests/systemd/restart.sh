#!/bin/bash
#: tgtd, dnsmasq and the server of boot files are units of their own: restarting, killing and stopping bmid leaves their processes alone.
. /test/lib.sh
prepare
systemctl start bmid.service
fill
workers() { pgrep -x tgtd; pgrep -x dnsmasq; pgrep -f -- ' --boot-files '; }
before=$(workers)
is "$(echo "$before" | wc -l)" 3
in_own_units() { local pid; for pid in $(workers); do grep -q 'bmid-\(tgtd\|dnsmasq\|http\)' "/proc/$pid/cgroup" || return 1; done; }
in_own_units
systemctl restart bmid.service
is "$(workers)" "$before"
bmictl node show n1 -f json >/dev/null
kill -KILL "$(property bmid MainPID)"
came_back() { [ "$(property bmid NRestarts)" -ge 1 ] && [ "$(property bmid ActiveState)" = active ]; }
eventually came_back
bmictl reconcile >/dev/null
is "$(workers)" "$before"
systemctl stop bmid.service bmid.socket
is "$(workers)" "$before"
# And the other way round: a worker that dies is brought back, filled.
systemctl start bmid.service
kill -KILL "$(pgrep -x tgtd)"
refilled() { bmictl target ls -f json | grep -q iqn && [ "$(pgrep -cx tgtd)" = 1 ] && bmictl status; }
eventually refilled
