#!/usr/bin/env bash
# Instances are restarted, stopped and watched, each for itself.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

b=$(property site-b MainPID)

index=$(</sys/class/net/eu0/ifindex)
owner=$(stat -c %u /run/ethudp/site-a)
check "site-a restarts" systemctl restart ethudp@site-a
check "its interface is still the same" equal "$index" "$(</sys/class/net/eu0/ifindex)"
check "and its user made anew" equal "$owner" "$(stat -c %u /run/ethudp/site-a/site-a.sock)"
check "with its addresses" equal 2 "$(ip -o addr show dev eu0 | grep -cE 'inet 10.8.0.1/24|inet6 fd00::1/64')"
check "site-a is up again" within 10 state site-a up
check "traffic passes again" within 10 traffic

check "site-a stops" systemctl stop ethudp@site-a
check "it has not failed" equal 'inactive success' "$(property site-a ActiveState) $(property site-a Result)"
check "its interface is gone" not test -e /sys/class/net/eu0
check "its directory is gone, the other one stays" equal 'site-b' "$(ls -A /run/ethudp | paste -sd ' ')"
check "the other one still answers" equal site-b "$(ethudp show --json | jq -r '.[].name')"
check "site-a starts again" systemctl start ethudp@site-a
check "traffic passes again" within 10 traffic

# The same name, started by root: neither takes the other's place.
check "root cannot start another site-a" grep -q 'already running (control socket /run/ethudp/site-a/site-a.sock)' \
    <(ethudp up site-a 2>&1)

# Names of which systemd can make no user.
cp /etc/ethudp/site-a.toml /etc/ethudp/Site.with.dots.toml
sed -i 's/eu0/eu7/; s/6000/6007/; s/site-a.key/Site.with.dots.key/; s/10.8.0.1/10.9.0.1/; s/fd00::1/fd07::1/' \
    /etc/ethudp/Site.with.dots.toml
cp /etc/ethudp/site-a.key /etc/ethudp/Site.with.dots.key
restorecon -R /etc/ethudp
dots=/etc/systemd/system/ethudp@Site.with.dots.service.d
install -D -m 644 -t $dots /usr/share/doc/ethudp/examples/ethudp-credential.conf
systemctl daemon-reload
check "with dots in its name it has no user" not systemctl start ethudp@Site.with.dots 2>/dev/null
user=$(ethudp check Site.with.dots 2>&1 | sed -n 's/.*a drop-in with `\(User=[^`]*\)`.*/\1/p')
printf '[Service]\n%s\n' "$user" >$dots/user.conf
systemctl daemon-reload
systemctl reset-failed ethudp@Site.with.dots
check "by the drop-in that check says it has ($user)" systemctl start ethudp@Site.with.dots
check "and is shown" grep -qxE 'up|connecting' <(show Site.with.dots .state)
systemctl stop ethudp@Site.with.dots
rm -r $dots /etc/ethudp/Site.with.dots.*
systemctl daemon-reload

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
