#!/usr/bin/env bash
# Removal as docs/RECIPES.md has it, on a machine with tunnels that run: nothing is left. The last check, as nothing is there after it.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

# Files of the program that are left, but for these checks, the journal and what root has brought.
left() {
    find / -xdev \( -path /root -o -path /usr/local/sbin -o -path /var/log -o -path /tmp \) -prune -o -iname '*ethudp*' -print
}

check "before, there is much" test "$(left | wc -l)" -gt 20
mapfile -t units < <(systemctl list-units --all --plain --no-legend 'ethudp@*' | awk '{print $1}')
check "tunnels run" test "${#units[@]}" -ge 1
systemctl disable --now "${units[@]}" 2>/dev/null
check "no interface of a tunnel is left" equal '' "$(ip -o link show type tun)"
rm -rf /etc/systemd/system/ethudp@*.service.d
# Its load_policy may not write to the terminal of these checks.
semodule -r ethudp </dev/null >/dev/null 2>&1
check "the module is removed" not grep -qw ethudp <(semodule -l)
sh -e ./uninstall
rm -rf /etc/ethudp /run/ethudp
check "the user can be removed" userdel ethudp
check "the group of those who may ask can be removed" groupdel ethudp-status
systemctl daemon-reload
systemctl reset-failed
check "no file is left" equal '' "$(left)"
check "no user or group is left" not grep -q ethudp /etc/passwd /etc/group
check "no unit is left" equal '' "$(systemctl list-units --all --plain --no-legend 'ethudp*')"
check "no process is left" not pgrep -f ethudp-
finish
