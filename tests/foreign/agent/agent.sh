#!/bin/sh
# A price desk. `serve` lives and beats; `ask` answers one message: the goods named in it, with their prices.
here=$(dirname "$0")
state=${MOSS_STATE_DIR:-/state}

price() {
    sed -n "s/^$1 //p" "$here/prices.txt"
}

answer() {
    good=$1
    found=$(price "$good")
    echo "$good costs ${found:-nothing we know}."
}

case $1 in
serve)
    mkdir "$state/writer" 2>/dev/null || echo "two of us write here" >>"$state/alarm.txt"
    trap 'rmdir "$state/writer"; exit 0' TERM INT
    echo started >>"$state/journal.txt"
    beat=0
    while :; do
        beat=$((beat + 1))
        echo "{\"boot_id\": \"$MOSS_BOOT_ID\", \"beat\": $beat}" >"$state/heartbeat.new"
        mv "$state/heartbeat.new" "$state/heartbeat.json"
        sleep 0.1 &
        wait $!
    done
    ;;
ask)
    read -r words
    # shellcheck disable=SC2086
    answer $words
    ;;
esac
