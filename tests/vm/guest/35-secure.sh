#!/usr/bin/env bash
# Two sites by `ethudp init`, so on the secure wire, each an instance of the unit: secure-a here, secure-b in the network namespace
# b. Who has the private keys, and who has not; and a session again after a worker's end.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

sites=(secure-a secure-b)
init() { ethudp init "$@" --port 6100 2>/run/init; }
# label FILE: the type that SELinux has for it.
label() { stat -c %C "$1" | cut -d: -f3; }
across() { ping -q -n -c 3 -i 0.2 -W 2 10.8.1.2 >/dev/null && ip netns exec b ping -q -n -c 3 -i 0.2 -W 2 10.8.1.1 >/dev/null; }

of_a=$(init secure-a --address 10.8.1.1/24 --endpoint 192.0.2.1)
check "a site begins: $(tail -n 1 /run/init)" test -n "$of_a"
of_b=$(init secure-b --peer "$of_a")
check "the other one answers" test -n "$of_b"
check "by that the first is complete" ethudp init secure-a --peer "$of_b"

for site in "${sites[@]}"; do
    check "$site: its key is root's alone" equal '600 root:root' "$(stat -c '%a %U:%G' /etc/ethudp/$site.key)"
    check "$site: and a key to SELinux from the beginning" equal ethudp_key_t "$(label /etc/ethudp/$site.key)"
done
restorecon -RF /etc/ethudp
for site in "${sites[@]}"; do
    check "$site: the labels are those of file and key" equal 'ethudp_etc_t ethudp_key_t' \
        "$(label /etc/ethudp/$site.toml) $(label /etc/ethudp/$site.key)"
    check "$site: check says what lets the key be read" grep -q "$site.key: not readable for the user of ethudp@$site" \
        <(ethudp check $site 2>&1)
    install -D -m 644 -t /etc/systemd/system/ethudp@$site.service.d /usr/share/doc/ethudp/examples/ethudp-credential.conf
done
printf '[Service]\nNetworkNamespacePath=/run/netns/b\n' >/etc/systemd/system/ethudp@secure-b.service.d/netns.conf
systemctl daemon-reload
check "with the drop-in it has nothing to say" equal "" "$(ethudp check "${sites[@]}" 2>&1 >/dev/null)"

for site in "${sites[@]}"; do
    check "$site starts" systemctl start ethudp@$site
done
for site in "${sites[@]}"; do
    check "$site is up" within 20 state $site up
    check "$site: what the session is made of" equal 'true Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s ML-KEM-768' \
        "$(show $site '.session | "\(.established) \(.handshake) \(.kem)"')"
done
check "traffic passes" within 10 across
fingerprint=$(show secure-a .session.fingerprint)
check "both show the same fingerprint" equal "$fingerprint" "$(show secure-b .session.fingerprint)"
for site in "${sites[@]}"; do
    check "$site: which its log has, once" equal 1 "$(journalctl -q -b -o cat -u ethudp@$site | grep -c "$fingerprint")"
done

for site in "${sites[@]}"; do
    credential=/run/credentials/ethudp@$site.service/$site.key
    user=$(stat -c %u "/proc/$(property $site MainPID)")
    # reads USER: whether a process of that user, in the group of the status, can read it.
    reads() { setpriv --reuid "$1" --regid ethudp-status --clear-groups test -r $credential; }
    check "$site: its user can read its key" reads "$user"
    check "$site: another member of its group cannot" not reads "nobody"
    for process in supervisor helper worker; do
        pid=$(show $site .pids.$process)
        check "$site: its $process runs" test -n "$(ls "/proc/$pid/fd")"
        check "$site: and holds no file of keys open" not grep -qE 'etc/ethudp|credentials|\.key' <(ls -l "/proc/$pid/fd")
    done
done

worker=$(show secure-a .pids.worker) handshakes=$(show secure-b .session.handshakes)
kill -KILL "$worker"
another() { [[ $(show secure-a .pids.worker) != @("$worker"|null) ]]; }
check "another worker takes over" within 5 another
check "traffic passes again" within 10 across
check "by another session" test "$(show secure-b .session.handshakes)" -gt "$handshakes"

# The peer may come in by any interface, but not by the tunnel's own, though that one is there already.
mtu() { ip -o link show "$(ip -o addr show to 10.8.1.1 | awk '{ print $2 }')" | grep -o ' mtu [0-9]*'; }
before=$(mtu)
check "secure-a restarts" systemctl restart ethudp@secure-a
check "with the MTU that it had:$before" equal "$before" "$(mtu)"
check "traffic passes again" within 20 across

for site in "${sites[@]}"; do
    systemctl stop ethudp@$site
    check "$site: has not failed" equal success "$(property $site Result)"
    rm -r /etc/systemd/system/ethudp@$site.service.d /etc/ethudp/$site.{toml,key}
done
systemctl daemon-reload
finish
