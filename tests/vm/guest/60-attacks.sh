#!/usr/bin/env bash
# A program in the worker's place that does nothing to confine itself: what it tries is denied by SELinux, or does not
# exist for it by the filter that it inherits.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

worker=/usr/libexec/ethudp/ethudp-worker
systemctl stop ethudp@site-a
cp -a $worker /root/worker
install -m 0711 /usr/local/sbin/stub-bare $worker
restorecon $worker
check "with it site-a does not start" not systemctl start ethudp@site-a 2>/dev/null
systemctl stop ethudp@site-a
said=$(journalctl -q -b -o cat -u ethudp@site-a | grep -o 'configuration: .*' | tail -n 1)
for attempt in configuration key tap file shell kill; do
    check "denied: $attempt" grep -q "$attempt: permission denied" <(echo "$said")
done
for attempt in status udp trace; do
    check "not there: $attempt" grep -qE "$attempt: (unsupported|operation not supported)" <(echo "$said")
done
denied=$(denials)
# The key is behind the directory of the configuration; the device is denied by the supervisor's Landlock before SELinux is asked.
for what in 'search.*ethudp_etc_t' 'ethudp_runtime_t' 'sigkill.*tcontext=system_u:system_r:ethudp_t'; do
    check "SELinux has said so: $what" grep -q "$what" <(grep scontext=system_u:system_r:ethudp_worker_t <<<"$denied")
done
check "and no other domain has been denied anything" not grep -v ethudp_worker_t <(echo "$denied")
mv -f /root/worker $worker
restorecon $worker
check "site-a starts again" systemctl start ethudp@site-a
check "traffic passes again" within 10 traffic
finish
