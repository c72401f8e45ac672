#!/usr/bin/env bash
# What the processes of both tunnels are and may do, as the kernel, SELinux and systemd see it.

# shellcheck source=tests/vm/guest/lib.sh
. ./lib.sh

gid=$(getent group ethudp-status | cut -d: -f3)
# user SITE: of its main process, by which systemd has started it.
user() { stat -c %u "/proc/$(property "$1" MainPID)"; }
uid_a=$(user site-a) uid_b=$(user site-b)
check "each site has a user of its own, made for it" \
    test "$uid_a" -ge 61184 -a "$uid_b" -ge 61184 -a "$uid_a" -le 65519 -a "$uid_b" -le 65519 -a "$uid_a" != "$uid_b"

# wanted DOMAIN UID: of every process. In CapBnd are CAP_NET_ADMIN and CAP_NET_RAW, because emptying it would take
# CAP_SETPCAP, which the unit does not give.
wanted() {
    cat <<WANTED
domain system_u:system_r:$1:s0
Uid $2 $2 $2 $2
Gid $gid $gid $gid $gid
CapInh 0000000000000000
CapPrm 0000000000000000
CapEff 0000000000000000
CapBnd 0000000000003000
CapAmb 0000000000000000
NoNewPrivs 1
Seccomp 2
traceable only by 0
WANTED
}

# found PID: the same of a process. Its files in /proc belong to root if its user cannot trace it.
found() {
    echo "domain $(domain "$1")"
    for name in Uid Gid CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp; do
        echo "$name $(field "$1" $name)"
    done
    echo "traceable only by $(stat -c %u "/proc/$1/mem")"
}

for site in site-a site-b; do
    processes=(supervisor helper worker)
    [[ $site != site-a ]] || processes+=(resolver)
    for process in "${processes[@]}"; do
        domain=ethudp_${process}_t
        [[ $process != supervisor ]] || domain=ethudp_t
        check "$site, $process: $domain, its user, no capability" \
            equal "$(wanted $domain "$(user $site)")" "$(found "$(show $site .pids.$process)")"
    done
    # Supervisor: its own on top of the unit's. The others inherit what is there when they are started, and add theirs: the
    # helper two before the supervisor has its own, the worker one behind it.
    filters() { field "$(show $site ".pids.$1")" Seccomp_filters; }
    check "$site: each has filters of its own" equal "$(($(filters supervisor) + 1)) $(($(filters supervisor) + 1))" \
        "$(filters helper) $(filters worker)"
    if [[ $site == site-a ]]; then
        check "$site: the resolver has a filter of its own" equal "$(filters supervisor)" "$(filters resolver)"
    fi
    # A name is looked up by a child of the resolver, which ends after its answer.
    others() {
        comm -13 <(show $site '.pids[] | values' | sort) <(sort "/sys/fs/cgroup$(property $site ControlGroup)/cgroup.procs") |
            while read -r pid; do grep -q "^PPid:	$(show $site .pids.resolver)$" "/proc/$pid/status" || echo "$pid"; done
    }
    check "$site: there is no other process" equal "" "$(others 2>/dev/null)"
    check "$site: the worker is confined" equal 'true true' \
        "$(show $site '"\(.confinement.seccomp) \(.confinement.landlock_abi > 0)"')"
    exposure=$(systemd-analyze security --no-pager ethudp@$site | sed -n 's/.*exposure level.*: \([0-9.]*\).*/\1/p')
    check "$site: systemd-analyze security says $exposure, which is at most 2.1" awk "BEGIN { exit !($exposure <= 2.1) }"
done
check "no process of uid 0 is in a domain of ours" equal "" "$(ps -eo uid=,label=,pid= | awk '$1 == 0 && /ethudp/')"

# as UID GROUP COMMAND...
as() { setpriv --reuid "$1" --regid "$2" --clear-groups "${@:3}"; }
as_user() { as "$@" >/dev/null 2>&1; }
site_b() { as_user "$uid_b" ethudp-status "$@"; }
check "the tunnels' user cannot read the key of site-a" not as_user ethudp ethudp cat /etc/ethudp/site-a.key
check "nor write its configuration" not as_user ethudp ethudp touch /etc/ethudp/site-a.toml
check "a member of the group ethudp-status can see the status" as_user nobody ethudp-status ethudp show site-a
check "of all" equal 'site-a site-b' "$(as nobody ethudp-status ethudp show --json | jq -r '.[].name' | paste -sd ' ')"
for key in site-a site-b; do
    check "and not read the key of $key" not as_user nobody ethudp-status cat /etc/ethudp/$key.key
done
check "another user cannot" not as_user nobody nogroup ethudp show site-a
check "nor can a member of the group of the keys" not as_user nobody ethudp ethudp show site-a

# An attacker in site-b, and any other process of its user, unconfined: it can reach site-b, and nothing of site-a.
credential=/run/credentials/ethudp@site-a.service/site-a.key
check "site-b cannot read the key of site-a" not site_b cat $credential
check "which root can" test -s $credential
for file in /run/ethudp/site-a/site-a.sock /run/ethudp/site-a; do
    check "nor remove or replace $file" not site_b mv $file /run/ethudp/site-a/x
    check "nor remove it with all below, $file" not site_b rm -rf $file
done
check "nor make anything there" not site_b touch /run/ethudp/site-a/x /run/ethudp/x
check "its own it could" site_b touch /run/ethudp/site-b/x
rm /run/ethudp/site-b/x
read -ra pids < <(show site-a '.pids[] | values' | paste -sd ' ')
tried=$(as "$uid_b" ethudp-status stub-neighbour "${pids[@]}")
check "nor trace, read or signal its processes" equal "$((12 * ${#pids[@]})) 0" \
    "$(wc -l <<<"$tried") $(awk '$3 != 1 && $3 != 13' <<<"$tried" | wc -l)"
check "site-a has noticed nothing" state site-a up

root=/proc/$(show site-a .pids.helper)/root
check "the device of TAP interfaces is there" test -c "$root/dev/net/tun"
check "disks, memory and terminals are not" equal "" "$(find "$root/dev/" -type b -o -name mem -o -name 'ttyS*')"
check "the root file system is read-only" grep -q '^ro' <(awk '$5 == "/" { print $6 }' "${root%/root}/mountinfo")
finish
