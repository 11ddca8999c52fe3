#!/bin/bash
#: A qcow2 image becomes a raw one: by the unit as bmid lays its work out, and through bmid itself.
. /test/lib.sh
prepare
truncate -s 64M /root/disk.raw
head -c 2M /dev/urandom | dd of=/root/disk.raw bs=1M seek=7 conv=notrunc status=none
qemu-img convert -O qcow2 /root/disk.raw /root/disk.qcow2

work=/run/bmid/convert/by-hand
mkdir -p $work /root/staging
install -m 644 /root/disk.qcow2 /root/staging/data
truncate -s 64M /root/staging/disk; chmod 666 /root/staging/disk
ln -s /root/staging/data $work/in; ln -s /root/staging/disk $work/out; echo FORMAT=qcow2 >$work/env
systemctl start bmid-convert@by-hand.service
cmp /root/disk.raw /root/staging/disk
# Holes stayed holes.
[ "$(stat -c %b /root/staging/disk)" -le 8192 ]

# What it is not: a whole disk for a file that lies about its format.
echo FORMAT=vmdk >$work/env
! systemctl start bmid-convert@by-hand.service 2>/dev/null

systemctl start bmid.service
eventually in_use
bmictl image import /root/disk.qcow2 --name converted
bmictl image export converted /root/back.raw
cmp /root/disk.raw /root/back.raw
# And it was a unit that did it, not bmid itself.
journalctl -o cat | grep 'Finished bmid-convert@' | grep -qv by-hand
