#!/bin/bash
#: All units are valid, and what they allow is little.
. /test/lib.sh
prepare
exposure() { systemd-analyze security --no-pager --offline=yes "$1" | sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\) .*/\1/p'; }
for unit in /usr/local/lib/systemd/system/bmid*; do
    name=${unit##*/}
    systemd-analyze verify --man=no "${name/@./@x.}"
    case $name in
        *.service)
            level=$(exposure "${name/@./@x.}")
            echo "$name: $level"
            # dnsmasq talks to machines that have no address yet and sets its group: each costs a tenth.
            most=2.5; [ "$name" != bmid-dnsmasq@.service ] || most=2.7
            awk -v l="$level" -v most=$most 'BEGIN { exit !(l != "" && l <= most) }'
            ;;
    esac
done
