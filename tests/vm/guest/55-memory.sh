#!/usr/bin/env bash
# Memory: overload is not the end of a tunnel that is in order; a worker that takes all is the end of that worker.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

group=/sys/fs/cgroup$(property site-a ControlGroup)
group=${group/site-a/full}
events() { awk -v what="$1" '$1 == what { print $2 }' "$group/memory.events"; }
sockets() { awk '$1 == "sock" { print $2 }' "$group/memory.stat"; }

# What all sockets of this small machine may hold would end it sooner.
echo '100000 200000 400000' >/proc/sys/net/ipv4/udp_mem

# As much as can wait: both paths are full, and no process reads them. Any sender can be the peer.
printf '%s\n' 'mode = "tap"' 'wire = "classic"' >/etc/ethudp/full.toml
printf '[[path]]\nlocal = "127.0.0.1:%s"\nremote = "any"\n' 7101 7102 >>/etc/ethudp/full.toml
restorecon -R /etc/ethudp
check "a tunnel with two paths starts" systemctl start ethudp@full
worker=$(show full .pids.worker)
kill -STOP "$worker"
for port in 7101 7102; do
    dd if=/dev/zero bs=60000 count=1200 status=none >"/dev/udp/127.0.0.1/$port"
done
waiting=$(sockets) all=$(<"$group/memory.current")
echo "$waiting bytes wait in sockets, $all are used in all, of $(<"$group/memory.max")"
check "what waits in sockets counts, 8 MiB a path" test "$waiting" -gt 14000000 -a "$waiting" -lt 20000000
another() { [[ $(show full .pids.worker) != @("$worker"|null) ]]; }
check "the frozen worker is replaced" within 15 another
check "nothing was killed for want of memory" equal '0 0' "$(events oom) $(events oom_kill)"
check "at the most, three quarters of the limit were used: $(<"$group/memory.peak")" \
    test $(($(<"$group/memory.peak") * 4)) -lt $(($(<"$group/memory.max") * 3))
systemctl stop ethudp@full

# A worker that forwards for some seconds, and then fills memory.
worker=/usr/libexec/ethudp/ethudp-worker
cp -a $worker /root/worker
install -m 0711 /usr/local/sbin/stub-hog $worker
restorecon $worker
mkdir -p /etc/systemd/system/ethudp@full.service.d
printf '[Service]\nMemoryMax=32M\n' >/etc/systemd/system/ethudp@full.service.d/memory.conf
systemctl daemon-reload
check "with a worker that will fill memory it starts" systemctl start ethudp@full
supervisor=$(property full MainPID)
logged() { journalctl -q -b -o cat -u ethudp@full | grep -q "$1"; }
check "the worker is killed for want of memory, which the supervisor notices" within 30 logged 'out of memory: the kernel killed'
check "it was the worker" logged 'worker .* ended: SIGKILL'
check "the supervisor is the same, and another worker is counted" \
    equal "$supervisor active" "$(property full MainPID) $(property full ActiveState)"
replaced() { (($(show full .worker_restarts) > 0)); }
check "the worker is replaced" within 10 replaced
systemctl stop ethudp@full
mv -f /root/worker $worker
restorecon $worker
rm -r /etc/systemd/system/ethudp@full.service.d /etc/ethudp/full.toml
systemctl daemon-reload
check "the others have noticed nothing" traffic
finish
