#!/usr/bin/env bash
#
# Makes two sites on this machine one by `ethudp init`, shows the tunnel between them, measures it, and kills a worker under it.
#
#   demo/demo.sh DIRECTORY     as root; DIRECTORY has the three executables. `make demo` builds them and calls this.
#
# All of it is in namespaces of its own: processes, network, and a /run in memory. The kernel removes them, and ends what is in
# them, when their first process ends, however it does.

set -eEuo pipefail

readonly PORT=6000
readonly -A OUTER=([a]=192.0.2.1 [b]=192.0.2.2)      # the network between the sites
readonly -A INNER=([a]=10.8.0.1 [b]=10.8.0.2)        # the network inside the tunnel
readonly ROW='  %-12s%6s%6s  %-17s%-10s%-14s%s\n'
readonly EVERY_MS=2 PINGS=1500                       # the stream under which the worker is killed: 3 s

fail() {
    trap - ERR
    # Inside, where this is the first process, the tunnels may have said more.
    (($$ > 1)) || tail -n 8 /run/site-?.log >&2 2>/dev/null || true
    echo "demo: $1" >&2
    exit 1
}
trap 'fail "line $LINENO has failed: $BASH_COMMAND"' ERR

say() { printf '%-16s%s\n' "$1" "$2"; }

# With its own group of processes, so that a signal to this one ends what is inside, and only then this. What ends this without a
# signal that it can hear ends what is inside at once.
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
        || fail "no namespaces, or no mounts in them, can be made here: is this a container that may not?"
    set -m
    trap interrupted INT TERM HUP
    env -i LC_ALL=C PATH="$PATH" setpriv --pdeathsig KILL "${namespaces[@]}" bash "$0" --inside "$(realpath -- "$1")" </dev/null &
    wait $! || exit 1
    say "left behind" "nothing: no process, no network, no file"
}

interrupted() {
    trap '' INT TERM HUP
    echo "demo: interrupted" >&2
    kill -TERM -- -$!
    wait $! || true
    exit 130
}

# What follows runs inside.

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

# init SITE ARGUMENT...: file and key of a site, and the line for the other one, in `line`.
init() {
    local site=$1
    shift
    line=$(ethudp init site-$site --dir /run "$@" 2>>/run/site-$site.log) || fail "ethudp init site-$site $* has failed"
    say "site $site" "ethudp init site-$site $*"
    [[ $line == ethudp2:* ]] || fail "ethudp init has printed no line for the other end: $line"
}

# Two sites by a line each way. The endpoint of b stays out of it: a takes it from where it comes.
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

# field NAME [SITE]: a number or a word of the status of site a's tunnel, or of another's; nothing while there is none.
field() {
    [[ $(ethudp show site-${2:-a} --json 2>/dev/null) =~ \"$1\":\"?([^\",}]+) && ${BASH_REMATCH[1]} != null ]] &&
        echo "${BASH_REMATCH[1]}"
}

# Until both are up, within 30 s, and site a's worker is not OLD: wait_up [OLD]
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

# What keeps others from reading and writing it, as the program says.
protection() {
    local fingerprint
    echo
    echo "  ethudp show site-a"
    ethudp show site-a | grep -E '^  (session|handshake|peer.s key|fingerprint)' || fail "nothing is shown of a session"
    echo
    fingerprint=$(field fingerprint)
    [[ -n $fingerprint && $fingerprint == "$(field fingerprint b)" ]] || fail "the ends have different fingerprints"
    say fingerprint "the same at site b: nobody is between them"
}

ping_across() {
    in_site a ping -n -c 5 -i 0.2 -W 1 "${INNER[b]}" >/run/ping || fail "no ping across the tunnel is answered"
    say ping "$(awk -F'[ /]' '/transmitted/ { printf "%d of %d answered", $4, $1 }
        /^rtt/ { print ", " $8 " ms there and back on average" }' /run/ping)"
}

throughput() {
    local try
    in_site b timeout --foreground 60 iperf3 -s -1 >/dev/null &
    # The server needs a moment until it listens.
    for ((try = 0; try < 200; try++)); do
        ! in_site a timeout --foreground 30 iperf3 -c "${INNER[b]}" -t 3 -f m >/run/iperf3 2>&1 || break
        sleep 0.05
    done
    grep -q receiver /run/iperf3 || fail "iperf3 has not measured: $(tail -n 1 /run/iperf3)"
    say throughput "$(awk '/receiver/ { print $7 " " $8 }' /run/iperf3), one TCP stream of 3 s; both sites share $(nproc) CPUs"
}

# What of site a's tunnel must outlive a worker.
index() { in_site a cat "/sys/class/net/$interface/ifindex"; }
socket() { in_site a awk -v port="$(printf ':%04X$' $PORT)" '$2 ~ port { print $10 }' /proc/net/udp; }

# holds PID DESCRIPTOR
holds() { [[ $'\n'$(readlink /proc/$1/fd/*)$'\n' == *$'\n'"$2"$'\n'* ]]; }

# The longest times without an answer until KILLED and from then on, the mean, and what was lost: silence KILLED
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
    wait $stream || fail "the pings are not answered any more"
    read -r after before mean lost < <(silence "$killed")
    say "worker killed" "pid $worker by SIGKILL, under a ping every $EVERY_MS ms; pid $(field worker) has taken over"
    say "frames again" "after $after ms, from one answer to the next (until the kill $before ms, on average $mean ms)"
    say lost "$lost pings"
    (($(field handshakes b) > handshakes)) || fail "the new worker has made no handshake of its own"
    say session "another one, by a new handshake: the keys have gone with the old worker"
    [[ $index == "$(index)" ]] || fail "interface $interface had index $index, and has $(index) now"
    say interface "$interface has index $index before and after"
    [[ $socket == "$(socket)" ]] && holds "$(field worker)" "socket:[$socket]" || fail "UDP port $PORT has changed hands"
    say "UDP port $PORT" "socket $socket before and after, now in the hands of worker $(field worker)"
}

# powers NAME: a process of site a, as /proc shows it.
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

  The processes of site a, with their new worker, as /proc shows them (user $user is $(id -u "$user")):

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

# They must end by themselves, and leave no socket.
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
    say ended "both tunnels at SIGTERM, with status 0"
}

inside() {
    local user=ethudp
    local -A supervisor
    trap 'exit 143' TERM
    built=$1
    mount -t tmpfs -o mode=755 demo /run
    [[ -x $built/ethudp ]] || fail "$built is in /run, which this demo covers for itself: build elsewhere"
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
