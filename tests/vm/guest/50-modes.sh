#!/usr/bin/env bash
# The other modes and drop-ins, one instance after the other: each starts, forwards, and ends.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

ip link add left type veth peer name right
ip link add br0 type bridge
for interface in left right br0; do ip link set $interface up; done

# tunnel TEXT...: writes a tunnel to this machine itself, by name.
tunnel() {
    printf '%s\n' 'wire = "classic"' "$@" '[[path]]' "local = \"127.0.0.1:${port:-7001}\"" 'remote = "localhost:7002"' \
        >/etc/ethudp/other.toml
}
runs() {
    check "$1: starts" systemctl start ethudp@other
    check "$1: forwards, with or without a listener" grep -qxE 'up|connecting' <(show other .state)
    systemctl stop ethudp@other
    check "$1: has not failed" equal success "$(property other Result)"
}

tunnel 'mode = "raw"' '[raw]' 'interface = "left"'
runs "mode raw"
tunnel 'mode = "bridge"' '[tap]' 'name = "eu9"' 'bridge = "br0"'
place() { cat /sys/class/net/eu9/ifindex /sys/class/net/eu9/brport/port_no; }
check "mode bridge: starts" systemctl start ethudp@other
before=$(place)
check "mode bridge: restarts" systemctl restart ethudp@other
check "mode bridge: its place in the bridge is the same" equal "$before" "$(place)"
runs "mode bridge"
tunnel 'mode = "mirror"' '[mirror]' 'interface = "left"' 'filter = "udp port 514"'
runs "mode mirror"

drop_in() {
    install -D -m 644 -t "/etc/systemd/system/ethudp@$1.service.d" "/usr/share/doc/ethudp/examples/$2"
    sed -i "s/198.51.100.7/$3/" "/etc/systemd/system/ethudp@$1.service.d/$2"
    systemctl daemon-reload
}

port=600 tunnel 'mode = "tap"'
setsebool ethudp_bind_reserved_ports on
drop_in other ethudp-lowport.conf ''
runs "a port below 1024"
setsebool ethudp_bind_reserved_ports off

drop_in site-a ethudp-peers.conf 192.0.2.2
systemctl restart ethudp@site-a
check "limited to its peer: traffic passes" within 10 traffic
drop_in site-a ethudp-peers.conf 192.0.2.77
systemctl restart ethudp@site-a
check "limited to another: none does" not within 5 traffic
rm /etc/systemd/system/ethudp@site-a.service.d/ethudp-peers.conf
systemctl daemon-reload
systemctl restart ethudp@site-a
check "without limit: traffic passes" within 10 traffic
finish
