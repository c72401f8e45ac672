#!/usr/bin/env bash
#
# Connects two sites on this machine with `ethudp init`, shows and measures the tunnel, and kills a worker under traffic.
#
#   demo/demo.sh DIRECTORY     as root; DIRECTORY has the three executables. `make demo` builds them and runs this script.
#
# The demo runs in its own namespaces: processes, network, and a /run in memory. When their first process ends, for any reason, the
# kernel kills all their processes and removes them.

set -eEuo pipefail

readonly PORT=6000
readonly -A OUTER=([a]=192.0.2.1 [b]=192.0.2.2)      # the network between the sites
readonly -A INNER=([a]=10.8.0.1 [b]=10.8.0.2)        # the network inside the tunnel
readonly ROW='  %-12s%6s%6s  %-17s%-10s%-14s%s\n'
readonly EVERY_MS=2 PINGS=1500                       # the stream under which the worker is killed: 3 s

fail() {
    trap - ERR
    # Inside, where this is the first process, the logs of the tunnels may say more.
    (($$ > 1)) || tail -n 8 /run/site-?.log >&2 2>/dev/null || true
    echo "demo: $1" >&2
    exit 1
}
trap 'fail "line $LINENO has failed: $BASH_COMMAND"' ERR

say() { printf '%-16s%s\n' "$1" "$2"; }

# Runs the demo in its own process group. A signal ends the demo first, and then this script. If this script is killed, the demo is killed
# at once.
outside() {
    local file tool
    PATH=$PATH:/usr/sbin:/sbin
    for file in ethudp ethudp-helper ethudp-worker; do
        [[ -x $1/$file ]] || fail "$1/$file: no such executable; \`make demo\` builds it"
    done
    for tool in ip ping iperf3 unshare setpriv awk; do
        command -v $tool >/dev/null || fail "$tool is missing; \`tests/install-deps demo\` installs it"
    done
    ((EUID == 0)) || fail "only root can make namespaces: sudo demo/demo.sh $1"
    local -a namespaces=(unshare --kill-child --pid --mount-proc --net --)
    "${namespaces[@]}" mount -t tmpfs demo /run \
        || fail "cannot create namespaces or mount in them: is this a container without the permission?"
    set -m
    trap interrupted INT TERM HUP
    env -i LC_ALL=C PATH="$PATH" setpriv --pdeathsig KILL "${namespaces[@]}" bash "$0" --inside "$(realpath -- "$1")" </dev/null &
    wait $! || exit 1
    say "left behind" "no process, no network, no file"
}

interrupted() {
    trap '' INT TERM HUP
    echo "demo: interrupted" >&2
    kill -TERM -- -$!
    wait $! || true
    exit 130
}

# The functions below run inside the namespaces.

ethudp() { "$built/ethudp" "$@"; }
in_site() { ip netns exec "$@"; }

join_sites() {
    local site
    for site in a b; do
        ip netns add $site
    done
    ip -n a link add wan0 type veth peer name wan0 netns b
    for site in a b; do
        ip -n $site address add "${OUTER[$site]}/24" dev wan0
        ip -n $site link set wan0 up
        ip -n $site link set lo up
    done
}

# init SITE ARGUMENT...: creates file and key of a site, and puts the line for the other site into `line`.
init() {
    local site=$1
    shift
    line=$(ethudp init site-$site --dir /run "$@" 2>>/run/site-$site.log) || fail "ethudp init site-$site $* has failed"
    say "site $site" "ethudp init site-$site $*"
    [[ $line == ethudp2:* ]] || fail "ethudp init has printed no line for the other end: $line"
}

# Exchanges one line each way. b has no endpoint: a learns its address.
introduce() {
    local line
    init a --address "${INNER[a]}/24" --endpoint "${OUTER[a]}"
    init b --peer "$line"
    init a --peer "$line"
}

# start SITE
start() {
    ip netns exec $1 "$built/ethudp" up /run/site-$1.toml --user "$user" >>/run/site-$1.log 2>&1 &
    supervisor[$1]=$!
}

# field NAME [SITE]: a number or a word in the status of the tunnel of SITE, by default a; empty without a status.
field() {
    [[ $(ethudp show site-${2:-a} --json 2>/dev/null) =~ \"$1\":\"?([^\",}]+) && ${BASH_REMATCH[1]} != null ]] &&
        echo "${BASH_REMATCH[1]}"
}

# wait_up [OLD]: waits at most 30 s until both tunnels are up and the worker of site a is not OLD.
wait_up() {
    local try worker
    for ((try = 0; try < 600; try++)); do
        { kill -0 "${supervisor[a]}" && kill -0 "${supervisor[b]}"; } 2>/dev/null || fail "the tunnels are not up: one has ended"
        if ethudp show site-a && ethudp show site-b && worker=$(field worker) && [[ $worker != "${1-}" ]]; then
            return
        fi >/run/state 2>&1
        sleep 0.05
    done
    fail "the tunnels are not up after 30 s: $(</run/state)"
}

# Session, keys and fingerprint, as `ethudp show` prints them.
protection() {
    local fingerprint
    echo
    echo "  ethudp show site-a"
    ethudp show site-a | grep -E '^  (session|handshake|peer.s key|fingerprint)' || fail "ethudp show prints no session"
    echo
    fingerprint=$(field fingerprint)
    [[ -n $fingerprint && $fingerprint == "$(field fingerprint b)" ]] || fail "the ends have different fingerprints"
    say fingerprint "the same at site b: no attacker is between them"
}

ping_across() {
    in_site a ping -n -c 5 -i 0.2 -W 1 "${INNER[b]}" >/run/ping || fail "no answer to a ping through the tunnel"
    say ping "$(awk -F'[ /]' '/transmitted/ { printf "%d of %d answered", $4, $1 }
        /^rtt/ { print ", average round trip " $8 " ms" }' /run/ping)"
}

throughput() {
    local try
    in_site b timeout --foreground 60 iperf3 -s -1 >/dev/null &
    # The server may not listen yet.
    for ((try = 0; try < 200; try++)); do
        ! in_site a timeout --foreground 30 iperf3 -c "${INNER[b]}" -t 3 -f m >/run/iperf3 2>&1 || break
        sleep 0.05
    done
    grep -q receiver /run/iperf3 || fail "no result from iperf3: $(tail -n 1 /run/iperf3)"
    say throughput "$(awk '/receiver/ { print $7 " " $8 }' /run/iperf3), one TCP stream of 3 s; both sites share $(nproc) CPUs"
}

# Interface index and UDP socket of site a, which must outlive a worker.
index() { in_site a cat "/sys/class/net/$interface/ifindex"; }
socket() { in_site a awk -v port="$(printf ':%04X$' $PORT)" '$2 ~ port { print $10 }' /proc/net/udp; }

# holds PID DESCRIPTOR
holds() { [[ $'\n'$(readlink /proc/$1/fd/*)$'\n' == *$'\n'"$2"$'\n'* ]]; }

# silence KILLED: longest gap between answers after KILLED and before, mean gap, lost pings.
silence() {
    awk -v killed="$1" '
        /icmp_seq=/ {
            now = substr($1, 2) + 0
            gap = last ? now - last : 0
            if (now < killed) { if (gap > before) before = gap } else if (gap > after) after = gap
            if (!first) first = now
            last = now
            count++
        }
        /transmitted/ { lost = $1 - $4 " of " $1 }
        END { printf "%.1f %.1f %.1f %s\n", after * 1e3, before * 1e3, (last - first) / (count - 1) * 1e3, lost }' /run/stream
}

kill_worker() {
    local worker interface index socket handshakes stream killed after before mean lost
    worker=$(field worker) interface=$(field interface) handshakes=$(field handshakes b)
    index=$(index) socket=$(socket)
    in_site a ping -n -D -i 0.00$EVERY_MS -c $PINGS -W 1 "${INNER[b]}" >/run/stream &
    stream=$!
    sleep 1.2
    killed=$EPOCHREALTIME
    kill -KILL "$worker"
    wait_up "$worker"
    wait $stream || fail "no more answers to the pings"
    read -r after before mean lost < <(silence "$killed")
    say "worker killed" "SIGKILL to pid $worker, under a ping every $EVERY_MS ms; pid $(field worker) replaces it"
    say "frames again" "after a gap of $after ms between two answers (longest gap before the kill $before ms, average $mean ms)"
    say lost "$lost pings"
    (($(field handshakes b) > handshakes)) || fail "the new worker has made no handshake"
    say session "new keys from a new handshake: the old keys ended with the old worker"
    [[ $index == "$(index)" ]] || fail "interface $interface had index $index, now $(index)"
    say interface "$interface has index $index before and after"
    [[ $socket == "$(socket)" ]] && holds "$(field worker)" "socket:[$socket]" || fail "UDP port $PORT has another socket"
    say "UDP port $PORT" "socket $socket before and after, now held by worker $(field worker)"
}

# powers NAME: privileges of a process of site a, from /proc.
powers() {
    local pid network handles
    pid=$(field "$1")
    network=$(awk 'NR > 2 { printf "%s%s", sep, $1; sep = " " }' /proc/$pid/net/dev)
    handles=$(! holds "$pid" /dev/net/tun || echo -n 'TAP '; ! holds "$pid" "socket:[$(socket)]" || echo "UDP $PORT")
    awk -v row="$ROW" -v name="$1" -v network="${network//:/}" -v handles="${handles:-none}" '
        /^Pid:/ { pid = $2 }
        /^Uid:/ { user = $2 == $3 && $2 == $4 && $2 == $5 ? $2 : $2 "/" $3 "/" $4 "/" $5 }
        /^Cap/ && $2 !~ /^0+$/ { sets = sets " " $1 $2 }
        /^Seccomp:/ { seccomp = $2 == 2 ? "filter" : "NO FILTER" }
        END { printf row, name, pid, user, sets ? sets : "none in any set", seccomp, network, handles }' /proc/$pid/status
}

processes() {
    local process
    cat <<END

  Processes of site a with the new worker, from /proc (user $user has UID $(id -u "$user")):

    supervisor -------- plan -------> helper
        ^                               |
        | reports, counters             | open handles, one way
        v                               v
        +--------------------------- worker ====== UDP ====== site b

END
    printf "$ROW" process pid uid capabilities seccomp interfaces handles
    for process in supervisor helper worker; do
        powers $process
    done
    echo
}

# Ends the tunnels with SIGTERM. They must leave no process and no socket.
end() {
    local site left
    kill -TERM "${supervisor[@]}"
    for site in a b; do
        wait "${supervisor[$site]}" || fail "the tunnel of site $site has ended with status $?"
    done
    wait
    left=(/proc/[0-9]*)
    ((${#left[@]} == 1)) || fail "processes are left: ${left[*]}"
    rmdir /run/ethudp || fail "a tunnel has left its socket"
    say ended "both tunnels after SIGTERM, with status 0"
}

inside() {
    local user=ethudp
    local -A supervisor
    trap 'exit 143' TERM
    built=$1
    mount -t tmpfs -o mode=755 demo /run
    [[ -x $built/ethudp ]] || fail "$built is in /run, which this demo replaces: build in another directory"
    id -u $user >/dev/null 2>&1 || user=nobody
    install -d -o $user /run/ethudp
    join_sites
    introduce
    local started=${EPOCHREALTIME//[!0-9]/}
    start a
    start b
    wait_up
    say tunnel "${INNER[a]} to ${INNER[b]}, UDP ${OUTER[a]}:$PORT to ${OUTER[b]}:$PORT, up after \
$(((${EPOCHREALTIME//[!0-9]/} - started) / 1000)) ms"
    protection
    ping_across
    throughput
    kill_worker
    processes
    end
}

case $#:${1-} in
    2:--inside) inside "$2" ;;
    1:[!-]*) outside "$1" ;;
    *) fail "usage: demo/demo.sh DIRECTORY, where the executables are; or \`make demo\`" ;;
esac
