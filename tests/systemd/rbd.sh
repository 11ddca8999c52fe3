#!/bin/bash
#: An order for the kernel's RBD client is carried out by a unit of its own, which may write to the kernel's files alone; it answers
#: what came of it. This kernel has no RBD client, or one that knows no such disk: the answer says so.
. /test/lib.sh
prepare
work=/run/bmid/rbd/by-hand
order() {
    mkdir -p $work; rm -f $work/said
    echo "$1" >$work/order
    systemctl start bmid-rbd@by-hand.service
}
order '{"file":"remove_single_major","line":"4711","key":null}'
cat $work/said
grep -q -e '"Closed":2' -e '"Refused":2' $work/said
# A key that is not there is told before the kernel is.
order '{"file":"add_single_major","line":"x","key":["bmid.test",{"path":"/nowhere/key","user":"bmi"}]}'
grep -q -e '"Closed":2' -e '/nowhere/key cannot be read' $work/said
# Other files are not written, and what is no order is none.
for bad in '{"file":"../../kernel/uevent_helper","line":"x","key":null}' '{"file":"add","line":"a\nb","key":null}' nonsense; do
    ! order "$bad" 2>/dev/null
    [ ! -e $work/said ]
done
# The unit is bmid's own way, too: without the kernel's client a datastore goes through librbd, and doctor finds nothing wrong.
systemctl start bmid.service
eventually in_use
[ "$(property bmid-rbd@by-hand.service CapabilityBoundingSet)" = cap_sys_admin ]
