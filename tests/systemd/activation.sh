#!/bin/bash
#: The socket unit alone is up; the first client brings the daemon.
. /test/lib.sh
prepare
systemctl start bmid.socket
is "$(property bmid.service ActiveState)" inactive
bmictl status >/dev/null
is "$(property bmid.service ActiveState)" active
# The socket is systemd's: a client that comes while the daemon restarts waits instead of failing.
systemctl restart --no-block bmid.service
bmictl status >/dev/null
eventually is "$(property bmid.service NRestarts)" 0
