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
# What the unit may is what mapping needs: with the kernel's files played in their place it writes the order, and the key comes as far as
# it does without the sandbox (this kernel may have no keys of Ceph's).
mount -t tmpfs -o mode=755 tmpfs /sys/bus
mkdir /sys/bus/rbd
: >/sys/bus/rbd/add_single_major
: >/sys/bus/rbd/remove_single_major
order '{"file":"remove_single_major","line":"4711","key":null}'
is "$(cat $work/said)" '"Done"'
is "$(cat /sys/bus/rbd/remove_single_major)" 4711
install -D -m 600 /dev/stdin /etc/ceph/ceph.client.bmi.keyring <<'END'
[client.bmi]
	key = AQBGqFdpAAAAABAAyLQWw8Z9hNq0ZZ3VvLqTqA==
END
order '{"file":"add_single_major","line":"10.8.0.1:6789 name=bmi,key=bmid.test rbd disk -","key":["bmid.test",{"path":"/etc/ceph/ceph.client.bmi.keyring","user":"bmi"}]}'
by_unit=$(cat $work/said)
rm $work/said
bmid --rbd-order $work
is "$by_unit" "$(cat $work/said)"
is "$(property bmid-rbd@by-hand.service Result)" success
umount /sys/bus
# The unit is bmid's own way, too: without the kernel's client a datastore goes through librbd, and doctor finds nothing wrong.
systemctl start bmid.service
eventually in_use
[ "$(property bmid-rbd@by-hand.service CapabilityBoundingSet)" = cap_sys_admin ]
