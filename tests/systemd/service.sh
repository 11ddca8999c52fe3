#!/bin/bash
#: Type=notify, reload and stop.
. /test/lib.sh
prepare
systemctl start bmid.service
# Started means ready: the very first question is answered.
bmictl status >/dev/null
is "$(property bmid ActiveState)" active
is "$(stat -c '%a %G' /run/bmid/bmid.sock)" '660 bmi'
is "$(stat -c '%a %U' /var/lib/bmid)" '700 root'
pid=$(property bmid MainPID)
systemctl reload bmid.service
bmictl status >/dev/null
is "$(property bmid MainPID)" "$pid"
systemctl stop bmid.service
is "$(property bmid Result)" success
is "$(property bmid ExecMainStatus)" 0
