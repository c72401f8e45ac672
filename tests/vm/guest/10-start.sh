#!/usr/bin/env bash
# Two sites, each an instance of the unit: site-a here, its key by LoadCredential=; site-b in the network namespace b, its
# key a file of the group ethudp, which a drop-in adds. The installation follows docs/OPERATING.md.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

check "SELinux enforces" equal Enforcing "$(getenforce)"
check "the policy module is loaded" grep -qw ethudp <(semodule -l)
check "a denial is seen: another program in the worker's domain" \
    not runcon system_u:system_r:ethudp_worker_t:s0 /bin/true 2>/dev/null
check "and is on the list" grep -q ethudp_worker_t <(denials)

systemd-sysusers
systemd-tmpfiles --create ethudp.conf
check "the directories are there" equal '1751 ethudp:ethudp-status 750 root:ethudp-status' \
    "$(stat -c '%a %U:%G' /run/ethudp /etc/ethudp | paste -sd ' ')"

ip netns add b
ip link add wan0 type veth peer name wan0 netns b
ip addr add 192.0.2.1/24 dev wan0
ip link set wan0 up
ip -n b addr add 192.0.2.2/24 dev wan0
ip -n b link set wan0 up
ip -n b link set lo up

# understood NAME: whether its file is one of a tunnel. That its user cannot read the key is an error by itself.
understood() {
    ethudp check "$1" 2>/run/check
    cat /run/check >&2
    ! grep -q 'toml: line' /run/check
}
# site NAME LOCAL REMOTE INNER: the shipped example of the classic wire, with our addresses.
site() {
    sed "s/192.0.2.1:/$2:/; s/198.51.100.7:/$3:/; s/10.8.0.1/$4/; s/fd00::1/fd00::${4##*.}/; s/NAME.key/$1.key/" \
        /usr/share/doc/ethudp/examples/classic.toml >"/etc/ethudp/$1.toml"
    echo 0123456789abcdef >"/etc/ethudp/$1.key"
    check "$1.toml can be understood" understood "$1"
}
umask 077
check "check says what lets a key be read" \
    grep -q 'site-x.key: not readable for the user of ethudp@site-x: add the drop-in ethudp-credential' \
    <(site site-x 192.0.2.1 192.0.2.2 10.8.0.1 2>&1)
check "and the file, as the umask makes it" grep -q "not readable for the unit's user: run .chgrp ethudp-status" \
    <(ethudp check site-x 2>&1)
rm /etc/ethudp/site-x.*
# Site a knows its peer by a name, so it has a resolver.
echo '192.0.2.2 site-b.example' >>/etc/hosts
site site-a 192.0.2.1 site-b.example 10.8.0.1
site site-b 192.0.2.2 192.0.2.1 10.8.0.2
umask 022
chmod 644 /etc/ethudp/*.toml
chgrp ethudp /etc/ethudp/site-b.key
chmod 640 /etc/ethudp/site-b.key
restorecon -RF /etc/ethudp /run/ethudp
install -D -m 644 -t /etc/systemd/system/ethudp@site-a.service.d /usr/share/doc/ethudp/examples/ethudp-credential.conf
mkdir -p /etc/systemd/system/ethudp@site-b.service.d
printf '[Service]\nNetworkNamespacePath=/run/netns/b\nSupplementaryGroups=ethudp\n' \
    >/etc/systemd/system/ethudp@site-b.service.d/netns.conf
systemctl daemon-reload
check "with the drop-ins, check has nothing to say of keys" not grep -q 'not readable' <(ethudp check site-a site-b 2>&1)

check "systemd has nothing to say of the unit" equal "" "$(systemd-analyze verify ethudp@site-a.service 2>&1)"
check "site-a starts" systemctl start ethudp@site-a
check "site-b starts" systemctl start ethudp@site-b
check "site-a is up" within 10 state site-a up
check "site-b is up" within 10 state site-b up
check "traffic passes" traffic
check "systemd knows state, peer and path" equal 'up, path 1 of 1: 192.0.2.1:6000 to 192.0.2.2:6000, up' \
    "$(property site-a StatusText | sed 's/; unavailable.*//')"
finish
