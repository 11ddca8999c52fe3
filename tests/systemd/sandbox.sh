#!/bin/bash
#: A worker that a machine has taken over: what it sees of this host is what it serves. It serves as it should.
. /test/lib.sh
prepare
systemctl start bmid.service
fill
ip tuntap add br1 mode tap; ip link set br1 up
bmictl network create other --interface br1 --address 10.8.0.1/24 >&2
bmictl node provision n2 --image golden --mac 52:54:00:12:34:57 --network other >&2
lab=$(bmictl network show lab -f json | sed -n 's/.*"id": "\(.*\)".*/\1/p' | head -n 1)
other=$(bmictl network show other -f json | sed -n 's/.*"id": "\(.*\)".*/\1/p' | head -n 1)
[ -S "/run/bmid/net/$other/tgtd/sock.0" ] && [ -s "/run/bmid/net/$other/boot/tftp/mac/52-54-00-12-34-57.ipxe" ]
pid() { systemctl show -p MainPID --value "bmid-$1@$lab.service"; }
as() { local of=$1; shift; nsenter -t "$(pid "$of")" -m "$@"; }
sees() { as "$1" test -e "$2"; }
reads() { [ "$(as "$1" head -c 1 "$2" 2>/dev/null | wc -c)" = 1 ]; }
no() { ! "$@" || { echo "it can: $*" >&2; return 1; }; }
[ "$(pid tgtd)" -gt 1 ] && [ "$(pid dnsmasq)" -gt 1 ]
for worker in tgtd dnsmasq; do
    as $worker test -d /usr
    for path in /run/systemd/private /run/bmid/bmid.sock "/run/bmid/net/$other" /run/systemd/system; do
        [ -e "$path" ]; no sees $worker "$path"
    done
    no reads $worker /var/lib/bmid/key
    no reads $worker /var/lib/bmid/db/conf
    grep -q 'Max core file size  *0 ' "/proc/$(pid $worker)/limits"
done
reads tgtd "$(echo /var/lib/bmid/datastore/volumes/*.raw | cut -d' ' -f1)"
no sees dnsmasq "/run/bmid/net/$lab/tgtd"
no sees dnsmasq /var/lib/bmid/datastore
# News of other networks is kept from it.
grep -q libbmid_rbdguard "/proc/$(pid dnsmasq)/maps"
reads dnsmasq "/run/bmid/net/$lab/boot/tftp/mac/52-54-00-12-34-56.ipxe"
no as dnsmasq touch "/run/bmid/net/$lab/boot/tftp/evil"
# It serves: a node that comes later, too; and tgtd is filled again after its death.
bmictl node provision n3 --image golden --mac 52:54:00:12:34:58 --network lab >&2
reads dnsmasq "/run/bmid/net/$lab/boot/tftp/mac/52-54-00-12-34-58.ipxe"
kill -KILL "$(pid tgtd)"
refilled() { bmictl doctor -f json | grep -q '10.9.0.1:3260 answers' && [ "$(bmictl target ls -f json | grep -c '"iqn"')" = 3 ]; }
eventually refilled
