#!/usr/bin/env bash
# Instances are restarted, stopped and watched, each for itself.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

b=$(property site-b MainPID)

index=$(</sys/class/net/eu0/ifindex)
check "site-a restarts" systemctl restart ethudp@site-a
check "its interface is still the same" equal "$index" "$(</sys/class/net/eu0/ifindex)"
check "with its addresses" equal 2 "$(ip -o addr show dev eu0 | grep -cE 'inet 10.8.0.1/24|inet6 fd00::1/64')"
check "site-a is up again" within 10 state site-a up
check "traffic passes again" within 10 traffic

check "site-a stops" systemctl stop ethudp@site-a
check "it has not failed" equal 'inactive success' "$(property site-a ActiveState) $(property site-a Result)"
check "its interface is gone" not test -e /sys/class/net/eu0
check "its socket is gone, the other one stays" equal site-b.sock "$(ls -A /run/ethudp)"
check "the other one still answers" equal site-b "$(ethudp show --json | jq -r '.[].name')"
check "site-a starts again" systemctl start ethudp@site-a
check "traffic passes again" within 10 traffic

# hangs: the supervisor stops, so that its keep-alives do not come.
a=$(property site-a MainPID)
check "there is a watchdog" equal 10s "$(property site-a WatchdogUSec)"
kill -STOP "$a"
another() { [[ $(property site-a ActiveState) == active && $(property site-a MainPID) != "$a" ]]; }
check "a supervisor that hangs is replaced" within 30 another
check "by the watchdog" grep -q 'Watchdog timeout' <(journalctl -u ethudp@site-a)
check "traffic passes again" within 10 traffic

check "site-b has been running all the time" equal "$b 0" "$(property site-b MainPID) $(property site-b NRestarts)"
check "longer than the watchdog would let it hang" \
    test $(($(cut -d. -f1 /proc/uptime) - $(property site-b ActiveEnterTimestampMonotonic) / 1000000)) -gt 15
finish
