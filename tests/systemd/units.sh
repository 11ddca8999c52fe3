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
            awk -v l="$level" 'BEGIN { exit !(l != "" && l <= 2.5) }'
            ;;
    esac
done
