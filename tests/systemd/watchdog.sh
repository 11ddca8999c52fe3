#!/bin/bash
#: A daemon that no longer runs round is killed and comes back.
. /test/lib.sh
prepare
mkdir -p /etc/systemd/system/bmid.service.d
printf '[Service]\nWatchdogSec=5\n' >/etc/systemd/system/bmid.service.d/short.conf
systemctl daemon-reload
systemctl start bmid.service
pid=$(property bmid MainPID)
# Twice the time passes and it is still the same process: it does feed the watchdog.
sleep 11
is "$(property bmid MainPID)" "$pid"
kill -STOP "$pid"
came_back() { [ "$(property bmid NRestarts)" -ge 1 ] && [ "$(property bmid ActiveState)" = active ]; }
eventually came_back
journalctl -u bmid -o cat | grep -qi watchdog
bmictl status >/dev/null
