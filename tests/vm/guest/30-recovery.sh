#!/usr/bin/env bash
# A worker is killed under traffic: another takes over, and nothing that the outside sees changes.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

index() { cat /sys/class/net/eu0/ifindex; }
# The inode of the socket at the tunnel's port: the port kept by another socket would show.
udp_socket() { awk '$2 == "010200C0:1770" { print $10 }' /proc/net/udp; }

check "the UDP socket is found" test -n "$(udp_socket)"
index=$(index) socket=$(udp_socket) supervisor=$(show site-a .pids.supervisor) restarts=$(show site-a .worker_restarts)
worker=$(show site-a .pids.worker)
ping -q -n -c 100 -i 0.05 -W 1 10.8.0.2 >/run/stream &
stream=$!
sleep 1
kill -KILL "$worker"
another() { [[ $(show site-a .pids.worker) != @("$worker"|null) ]]; }
check "another worker takes over" within 5 another
wait $stream
echo "ping, 100 of them in 5 s: $(grep -o '[0-9]* received.*' /run/stream)"
received=$(sed -n 's/.* \([0-9]*\) received.*/\1/p' /run/stream)
check "at most one second of pings is lost" test "$received" -ge 80
check "the interface is the same" equal "$index" "$(index)"
check "the UDP socket is the same" equal "$socket" "$(udp_socket)"
check "the supervisor is the same" equal "$supervisor" "$(show site-a .pids.supervisor)"
check "the worker's end is counted" equal $((restarts + 1)) "$(show site-a .worker_restarts)"
check "the new one is in its domain" equal system_u:system_r:ethudp_worker_t:s0 "$(domain "$(show site-a .pids.worker)")"
check "traffic passes" traffic
finish
