#!/bin/bash
#: What bmid logs carries the operation, the object and the caller as fields of their own.
. /test/lib.sh
prepare
systemctl start bmid.service
fill
fields=$(journalctl -u bmid -o json | tr ',' '\n' | sed -n 's/^{*"\([A-Z_]*\)":.*/\1/p' | sort -u)
for field in OPERATION OBJECT CALLER; do
    echo "$fields" | grep -q "^\(BMI_\|F_\)\{0,1\}$field" || { echo "no field $field among: $fields" >&2; exit 1; }
done
# The level is the journal's, not text in the message.
! journalctl -u bmid -o cat | grep -E '^[0-9]{4}-.*(INFO|WARN|ERROR)'
