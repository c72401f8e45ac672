# shellcheck shell=bash
# What the checks in this directory share; each of them sources it first.

failures=0

# check WHAT COMMAND...: WHAT is what must hold, and COMMAND succeeds if it does.
check() {
    local what=$1
    shift
    if "$@"; then
        echo "ok: $what"
    else
        echo "FAILED: $what ($*)"
        failures=$((failures + 1))
    fi
}

# The last line of a check.
finish() { exit $((failures > 0)); }

# within SECONDS COMMAND...: COMMAND succeeds before the time is over.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

# equal WANTED FOUND
equal() { [[ $1 == "$2" ]] || { echo "  wanted: $1"; echo "  found:  $2"; return 1; }; }

# not COMMAND...
not() { ! "$@"; }

# show NAME FILTER: a field of a tunnel's status, as jq finds it.
show() { ethudp show "$1" --json | jq -r "$2"; }

# state NAME STATE: whether the tunnel is in this state.
state() { [[ $(show "$1" .state) == "$2" ]]; }

# property NAME PROPERTY: what systemd says of an instance.
property() { systemctl show -P "$2" "ethudp@$1"; }

# field PID NAME: a line of /proc/PID/status, its words separated by one space.
field() { sed -n "s/^$2:\\s*//p" "/proc/$1/status" | tr -s '\t ' ' '; }

# domain PID: its SELinux context.
domain() { tr -d '\0' <"/proc/$1/attr/current"; }

# Whether each end of the tunnel between site-a and site-b hears the other.
traffic() { ping -q -n -c 3 -i 0.2 -W 2 10.8.0.2 >/dev/null && ip netns exec b ping -q -n -c 3 -i 0.2 -W 2 10.8.0.1 >/dev/null; }

# What SELinux has denied since the last call.
denials() {
    sleep 1
    journalctl --sync
    journalctl -q -b -o cat --cursor-file=/run/check.cursor _TRANSPORT=audit |
        grep -E '^(AVC avc:  denied|USER_AVC|SELINUX_ERR|USER_SELINUX_ERR)'
}
