#!/usr/bin/env bash
#
# Shows ethudp at work on one machine: two sites, a tunnel between them, and what happens when a worker is killed.
#
#   demo/demo.sh                 everything; what needs root goes through sudo when not started by root
#   demo/demo.sh --built DIR     as root: without building, with the executables in DIR
#
# All of it happens in two network namespaces and one temporary directory, which are gone at the end, whatever the end
# is. Only packages that were missing stay installed, and what cargo built.

set -euo pipefail

readonly STEPS=8
readonly CIPHER=aes-128 MTU=1400 PORT=6000
readonly OUTER_A=192.0.2.1 OUTER_B=192.0.2.2     # the network between the sites
readonly INNER_A=10.8.0.1 INNER_B=10.8.0.2       # the network inside the tunnel
readonly STREAM_MS=2 STREAM_PINGS=1500           # the stream under which the worker is killed: 3 s

self=$(realpath -- "${BASH_SOURCE[0]}")
readonly self
repository=${self%/demo/*}
readonly repository
# ip and ping are in directories that not every user's PATH has.
PATH=$PATH:/usr/sbin:/sbin

# ---------------------------------------------------------------- messages

step() { printf '[%d/%d] %s\n' "$1" "$STEPS" "$2"; }
note() { printf '      %s\n' "$1"; }

fail() {
    printf 'demo: %s\n' "$1" >&2
    exit 1
}

# ---------------------------------------------------------------- before root: tools and build

as_root() {
    if ((EUID == 0)); then "$@"; else sudo -- "$@"; fi
}

privileges() {
    if ((EUID == 0)); then
        step 1 "running as root, which network namespaces need"
    elif command -v sudo >/dev/null; then
        step 1 "not root: packages that are missing, and all from step 4 on, go through sudo"
    else
        fail "network namespaces need root: start this as root, or install sudo"
    fi
}

# The tools that the demo uses and a machine may lack. Not every ping and ip will do: those of busybox lack options.
missing_tools() {
    { ip -V 2>&1 || true; } | grep -q iproute2 || echo ip
    { ping -V 2>&1 || true; } | grep -q iputils || echo ping
    command -v iperf3 >/dev/null || echo iperf3
    # What the build links against.
    [[ -e /usr/include/pcap/pcap.h || -e /usr/include/pcap.h ]] || echo libpcap
    local tool
    for tool in awk grep setsid; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
}

# install_tools TOOL...: by the package manager of this system.
install_tools() {
    local manager output tool
    local -a packages=() refresh=() install=() limit=(timeout --foreground 300)
    local -A package=([ip]=iproute2 [ping]=iputils [iperf3]=iperf3 [awk]=gawk [grep]=grep [setsid]=util-linux
        [libpcap]=libpcap-devel)
    for manager in apt-get dnf zypper apk none; do
        ! command -v "$manager" >/dev/null || break
    done
    case $manager in
        apt-get)
            package[ping]=iputils-ping package[libpcap]=libpcap-dev
            refresh=(apt-get -q update)
            install=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install)
            ;;
        dnf)
            package[ip]=iproute
            install=(dnf -q -y install)
            ;;
        zypper)
            package[iperf3]=iperf
            install=(zypper --quiet --non-interactive install)
            ;;
        apk)
            package[libpcap]=libpcap-dev
            install=(apk add --quiet)
            ;;
        none) fail "missing: $*; install them (found none of apt-get, dnf, zypper, apk to do it)" ;;
    esac
    for tool; do
        packages+=("${package[$tool]}")
    done
    step 2 "installing ${packages[*]} by $manager"
    if ((${#refresh[@]} > 0)); then
        # Without fresh lists the installation may still succeed.
        as_root "${limit[@]}" "${refresh[@]}" </dev/null >/dev/null 2>&1 || note "the package lists cannot be refreshed"
    fi
    if ! output=$(as_root "${limit[@]}" "${install[@]}" "${packages[@]}" </dev/null 2>&1); then
        tail -n 8 <<<"$output" >&2
        fail "${packages[*]} could not be installed"
    fi
}

tools() {
    local -a missing
    hash -r
    mapfile -t missing < <(missing_tools)
    if ((${#missing[@]} == 0)); then
        step 2 "tools: ip, ping, iperf3 and libpcap are there"
        return
    fi
    install_tools "${missing[@]}"
    hash -r
    mapfile -t missing < <(missing_tools)
    ((${#missing[@]} == 0)) || fail "still missing after the installation: ${missing[*]}"
}

# Builds as the user who called, not as root if that can be told, and sets `built`.
build() {
    local home metadata
    local -a builder=(env)
    if ((EUID == 0)) && ((${SUDO_UID:-0} != 0)) && sudo -u "#$SUDO_UID" -- test -w "$repository"; then
        builder=(sudo -H -u "#$SUDO_UID" -- env)
        home=$(getent passwd "$SUDO_UID" | cut -d: -f6)
        step 3 "building the release executables, as user ${SUDO_USER:-$SUDO_UID}"
    else
        home=${HOME:-/}
        step 3 "building the release executables"
    fi
    builder+=("PATH=$PATH:$home/.cargo/bin")
    "${builder[@]}" sh -c 'command -v cargo' >/dev/null || fail "cargo is not there: install Rust (https://rustup.rs)"
    builder+=(cargo)
    cd -- "$repository"
    "${builder[@]}" build --release --workspace || fail "the build has failed"
    metadata=$("${builder[@]}" metadata --format-version 1 --no-deps)
    [[ $metadata =~ \"target_directory\":\"([^\"]+)\" ]] || fail "cargo does not say where it builds"
    built=${BASH_REMATCH[1]}/release
}

# ---------------------------------------------------------------- as root, outside: what is cleaned up
#
# The steps run in a process and session of their own, and this one only waits for them, so that a signal finds it idle,
# and whatever the steps have started is known by its session.

spaces=()
directory=''
inside=''
left=''

now_us() { echo "${EPOCHREALTIME//[!0-9]/}"; }

# Processes of the steps' session that still run.
session() {
    [[ -n $inside ]] || return 0
    # The first of them is not a session yet for a moment, but it is our child. The fields behind the name are state,
    # parent, process group and session.
    # shellcheck disable=SC2016 # These are fields of awk's.
    cat /proc/[0-9]*/stat 2>/dev/null | awk -v session="$inside" -v parent="$$" '
        { pid = $1; sub(/.*\) /, "") }
        ($4 == session || pid == session && $2 == parent) && $1 != "Z" { print pid }'
}

# gone MILLISECONDS: whether they have all ended within this time.
gone() {
    local -i end
    end=$(($(now_us) + $1 * 1000))
    while [[ -n $(session) ]]; do
        (($(now_us) < end)) || return 1
        sleep 0.05
    done
}

# signal_session NAME
signal_session() {
    local pid
    for pid in $(session); do
        kill -s "$1" "$pid" 2>/dev/null
    done
}

# Ends and removes all that was started or made, and says in `left` what it could not.
clean_up() {
    local space pid
    left='' inside=${!-}
    # The steps end their tunnels themselves, and wait for them.
    for pid in $(session); do
        [[ $pid != "$inside" ]] || kill -s TERM "$pid" 2>/dev/null
    done
    if ! gone 3000; then
        signal_session TERM
        gone 1000 || signal_session KILL
        gone 1000 || left+="processes: $(session | tr '\n' ' ')"
    fi
    for space in "${spaces[@]}"; do
        [[ -e /run/netns/$space ]] || continue
        # Whatever is in there was put there by this program.
        for pid in $(ip netns pids "$space" 2>/dev/null); do
            kill -s KILL "$pid" 2>/dev/null
        done
        ip netns del "$space" || left+="namespace $space "
    done
    if [[ -d $directory && ! -L $directory && -O $directory ]]; then
        rm -rf -- "$directory" || left+="$directory "
    fi
    spaces=() directory=''
}

show_logs() {
    local name
    for name in site-a site-b iperf3; do
        [[ -s $directory/$name.log ]] || continue
        echo "--- last lines of $name.log:"
        tail -n 8 -- "$directory/$name.log"
    done
} >&2

on_exit() {
    local -i status=$1
    # A forked process that has not become another program yet has nothing to clean up.
    ((BASHPID == $$)) || return
    set +e
    # From here on a signal must not keep the rest from happening.
    trap '' INT TERM HUP PIPE
    trap - EXIT
    case $status in
        0) ;;
        129 | 130 | 141 | 143) echo "demo: interrupted, cleaning up" >&2 ;;
        *) show_logs ;;
    esac
    clean_up
    if [[ -n $left ]]; then
        echo "demo: could not remove $left" >&2
        ((status != 0)) || status=1
    fi
    exit "$status"
}

demo() {
    ((EUID == 0)) || fail "network namespaces need root: start this as root"
    [[ -x $built/ethudp && -x $built/ethudp-helper && -x $built/ethudp-worker ]] \
        || fail "$built: the executables are not there: cargo build --release --workspace"
    local summary
    local -i started
    started=$(now_us)
    # The names are set before the things exist, so that nothing is forgotten when a signal comes between.
    spaces=("ethudp-demo-$$-a" "ethudp-demo-$$-b")
    directory=/tmp/ethudp-demo-$$-$RANDOM$RANDOM
    trap 'on_exit $?' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 141' PIPE
    trap 'exit 143' TERM
    # The tunnels' user reaches the sockets through it, and sees no other name in it.
    mkdir -m 0711 -- "$directory"
    setsid bash -- "$self" --inside "$$" "$directory" "$built" </dev/null &
    wait "$!"
    inside=$!
    gone 500 || fail "a tunnel has left processes: $(session | tr '\n' ' ')"
    summary=$(<"$directory/summary")
    set +e
    trap '' INT TERM HUP PIPE
    clean_up
    [[ -z $left ]] || fail "could not remove $left"
    note "nothing is left; all of it took $((($(now_us) - started + 500000) / 1000000)) s"
    printf '\n%s\n' "$summary"
    printf '  %-18s %s\n\n' "left behind" "no process, no namespace, no socket, no file"
}

# ---------------------------------------------------------------- as root, inside: helpers of the steps

supervisors=()

# is_child PID: whether it is a process that this one has started, and runs.
is_child() { [[ " $(jobs -rp | tr '\n' ' ')" == *" $1 "* ]]; }

# Asks all that still runs to end; whatever has not after 2 s is left to the process outside.
end_children() {
    ((BASHPID == $$)) || return
    trap '' TERM
    local pid
    local -i try
    for pid in $(jobs -rp); do
        kill -s TERM "$pid" 2>/dev/null || true
    done
    for ((try = 0; try < 40; try++)); do
        [[ -n $(jobs -rp) ]] || return 0
        sleep 0.05
    done
}

# The status of site a or b as JSON; nothing while it cannot be had.
status() { timeout --foreground 3 "$built/ethudp" show "site-$1" --json 2>/dev/null || true; }

state_of() { if [[ $1 =~ \"state\":\"([a-z]+)\" ]]; then echo "${BASH_REMATCH[1]}"; else echo none; fi; }

pid_of() { if [[ $1 =~ \"pids\":\{[^\}]*\"$2\":([0-9]+) ]]; then echo "${BASH_REMATCH[1]}"; fi; }

site_letter() { if (($1 == 0)); then echo a; else echo b; fi; }

check_tunnels() {
    local -i site
    for site in 0 1; do
        is_child "${supervisors[site]}" || fail "the tunnel at site $(site_letter "$site") has ended"
    done
}

# wait_up MILLISECONDS [PID]: until both sites are up, site a with another worker than PID; leaves its status in json_a.
wait_up() {
    local -i end
    local json_b states
    end=$(($(now_us) + $1 * 1000))
    while :; do
        json_a=$(status a) json_b=$(status b)
        states="$(state_of "$json_a") $(state_of "$json_b")"
        [[ $states != "up up" || $(pid_of "$json_a" worker) == "${2:-}" ]] || return 0
        check_tunnels
        (($(now_us) < end)) || fail "site a and b are to be up within $(($1 / 1000)) s, but are: $states"
        sleep 0.1
    done
}

# What of the tunnel at site a must outlive a worker.
interface_index() {
    local line
    line=$(ip -n "${spaces[0]}" -o link show dev eu0)
    echo "${line%%:*}"
}

# The inode of the socket at site a's UDP port: the port kept by another socket would show.
udp_socket() {
    local port
    printf -v port ':%04X' "$PORT"
    # shellcheck disable=SC2016 # These are fields of awk's.
    ip netns exec "${spaces[0]}" awk -v port="$port" 'index($2, port) { print $10; exit }' /proc/net/udp
}

# ---------------------------------------------------------------- as root, inside: the steps

find_user() {
    if id -u ethudp >/dev/null 2>&1; then
        user=ethudp
        note "the processes become user ethudp (uid $(id -u ethudp))"
    else
        user=nobody
        id -u nobody >/dev/null 2>&1 || fail "there is neither a user ethudp nor a user nobody to run the tunnels as"
        note "there is no user ethudp here, so the processes become user nobody (--user nobody)"
    fi
}

make_sites() {
    step 4 "two network namespaces, joined by a veth pair"
    note "site a is ${spaces[0]}, site b is ${spaces[1]}"
    local space
    for space in "${spaces[@]}"; do
        ip netns add "$space" || fail "no network namespace: is this a container without CAP_SYS_ADMIN?"
        ip -n "$space" link set lo up
    done
    ip -n "${spaces[0]}" link add wan0 type veth peer name wan0 netns "${spaces[1]}"
    ip -n "${spaces[0]}" address add "$OUTER_A/24" dev wan0
    ip -n "${spaces[1]}" address add "$OUTER_B/24" dev wan0
    for space in "${spaces[@]}"; do
        ip -n "$space" link set wan0 up
    done
}

# write_config SITE LOCAL REMOTE ADDRESS
write_config() {
    cat >"$directory/site-$1.toml" <<-END
	mode = "tap"
	wire = "classic"

	[tap]
	name = "eu0"
	address = ["$4/24"]
	mtu = $MTU

	[[path]]
	local = "$2:$PORT"
	remote = "$3:$PORT"

	[classic]
	cipher = "$CIPHER"
	key-file = "tunnel.key"
	END
}

start_tunnels() {
    step 5 "two tunnels: mode tap, $CIPHER, from site-a.toml and site-b.toml by \`ethudp up\`"
    find_user
    mkdir -- "$directory/run"
    chown -- "$(id -u "$user"):$(id -g "$user")" "$directory/run"
    export RUNTIME_DIRECTORY=$directory/run
    (umask 077 && head -c 512 /dev/urandom | LC_ALL=C tr -dc 'a-zA-Z0-9' | head -c 16 >"$directory/tunnel.key")
    write_config a "$OUTER_A" "$OUTER_B" "$INNER_A"
    write_config b "$OUTER_B" "$OUTER_A" "$INNER_B"
    local -i started site
    started=$(now_us)
    for site in 0 1; do
        local file
        file=$directory/site-$(site_letter "$site")
        ip netns exec "${spaces[site]}" "$built/ethudp" up "$file.toml" --user "$user" </dev/null >"$file.log" 2>&1 &
        supervisors[site]=$!
    done
    wait_up 6000
    note "both are up after $((($(now_us) - started) / 1000)) ms"
}

ping_across() {
    step 6 "traffic from site a to site b"
    local answer
    ip netns exec "${spaces[0]}" timeout --foreground -s INT 4 ping -n -c 5 -i 0.2 -W 1 "$INNER_B" \
        </dev/null >"$directory/ping.log" 2>&1 &
    wait $! || true
    check_tunnels
    answer=$(<"$directory/ping.log")
    [[ $answer =~ ([0-9]+)\ packets\ transmitted,\ ([0-9]+)\ received.*\ ([0-9.]+%)\ packet\ loss ]] \
        || fail "ping says nothing that can be read: ${answer##*$'\n'}"
    local sent=${BASH_REMATCH[1]} received=${BASH_REMATCH[2]} loss=${BASH_REMATCH[3]}
    [[ $answer =~ rtt\ [a-z/]+\ =\ [0-9.]+/([0-9.]+)/ ]] || fail "no ping across the tunnel is answered"
    ping_result="$received of $sent answered, $loss loss, ${BASH_REMATCH[1]} ms there and back on average"
    note "ping: $ping_result"
}

throughput() {
    local -i server try
    ip netns exec "${spaces[1]}" timeout --foreground 8 iperf3 -s -1 -B "$INNER_B" </dev/null >/dev/null 2>&1 &
    server=$!
    # The server listens when its port shows, as hexadecimal 1451, state 0A.
    for ((try = 0; ; try++)); do
        ! grep -q ':1451 .* 0A ' "/proc/$server/net/tcp" 2>/dev/null || break
        ((try < 40)) || fail "the iperf3 server does not start"
        sleep 0.05
    done
    ip netns exec "${spaces[0]}" timeout --foreground 6 iperf3 -c "$INNER_B" -t 3 -f m \
        </dev/null >"$directory/iperf3.log" 2>&1 &
    wait $! || { check_tunnels && fail "iperf3 has failed"; }
    mbits=$(sed -n 's!.* \([0-9.]*\) Mbits/sec.* receiver.*!\1!p' "$directory/iperf3.log")
    [[ -n $mbits ]] || fail "iperf3 gives no figure"
    rm -- "$directory/iperf3.log"
    wait "$server" || true
    note "iperf3: $mbits Mbit/s (one TCP stream, 3 s)"
}

# Kills a worker under a stream of pings, and looks for the longest time without an answer.
kill_worker() {
    step 7 "killing the worker of site a under a stream of pings, one every $STREAM_MS ms"
    local -i stream
    local killed line parent=''
    wait_up 2000
    worker_before=$(pid_of "$json_a" worker)
    index_before=$(interface_index)
    socket_before=$(udp_socket)
    ip netns exec "${spaces[0]}" timeout --foreground -s INT 5 \
        ping -n -D -i "0.00$STREAM_MS" -c "$STREAM_PINGS" -W 1 "$INNER_B" \
        </dev/null >"$directory/stream.log" 2>&1 &
    stream=$!
    sleep 1.2
    # Only what is the child of our own supervisor is killed.
    while read -r line; do
        [[ $line != PPid:* ]] || parent=$((${line#PPid:}))
    done <"/proc/$worker_before/status"
    [[ $parent == "${supervisors[0]}" ]] || fail "worker $worker_before is not a child of our supervisor"
    killed=$EPOCHREALTIME
    kill -KILL "$worker_before"
    wait_up 3000 "$worker_before"
    wait "$stream" || true
    measure "${killed/,/.}"
    worker_after=$(pid_of "$json_a" worker)
    index_after=$(interface_index)
    socket_after=$(udp_socket)
    note "worker $worker_before is dead, worker $worker_after forwards"
    note "longest time without an answer: $gap ms; $lost of $sent pings lost"
    [[ $index_before == "$index_after" ]] || fail "interface eu0 had index $index_before and has $index_after now"
    [[ -n $socket_before && $socket_before == "$socket_after" ]] || fail "UDP port $PORT has changed hands"
}

# The tunnels must end by themselves, and leave nothing.
end_tunnels() {
    step 8 "ending the tunnels and cleaning up"
    local -i site
    end_children
    for site in 0 1; do
        ! is_child "${supervisors[site]}" || fail "the tunnel at site $(site_letter "$site") does not end at SIGTERM"
        wait "${supervisors[site]}" || fail "the tunnel at site $(site_letter "$site") has ended with status $?"
    done
    rmdir -- "$directory/run" || fail "a tunnel has left its control socket"
}

# measure KILLED: sets gap_before, gap, mean, sent and lost from the stream's log, which has the time of each answer.
measure() {
    local figures
    figures=$(awk -v killed="$1" '
        /^\[[0-9.]+\] .*icmp_seq=/ && !/DUP!|nreachable/ {
            now = substr($1, 2) + 0
            if (count++ && now < killed && now - last > before) before = now - last
            if (count > 1 && now >= killed) { after++; if (now - last > longest) longest = now - last }
            if (count == 1) first = now
            last = now
        }
        / packets transmitted, / { sent = $1; received = $4 }
        END {
            if (count < 100 || after < 100 || sent == 0) exit 1
            mean = (last - first) / (count - 1)
            printf "%.1f %.1f %.1f %d %d\n", before * 1000, longest * 1000, mean * 1000, sent, sent - received
        }' "$directory/stream.log") || fail "the stream of pings did not go on: $(tail -n 2 -- "$directory/stream.log")"
    read -r gap_before gap mean sent lost <<<"$figures"
}

# ---------------------------------------------------------------- as root, inside: the processes as /proc shows them

# field PID NAME: a line of /proc/PID/status.
field() {
    local name value
    while IFS=$':\t' read -r name value; do
        if [[ $name == "$2" ]]; then
            echo "$value"
            return
        fi
    done <"/proc/$1/status"
    echo '?'
}

readonly CAPABILITIES=(
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
)

# capabilities PID: those in any set but the bounding set, which only limits what a process may gain.
capabilities() {
    local set mask bounding
    local -i all=0 bit
    local -a names=()
    for set in CapEff CapPrm CapInh CapAmb; do
        mask=$(field "$1" "$set")
        all=$((all | 16#${mask/\?/0}))
    done
    for bit in "${!CAPABILITIES[@]}"; do
        ((!(all >> bit & 1))) || names+=("${CAPABILITIES[bit]}")
    done
    bounding=$(field "$1" CapBnd)
    if ((${#names[@]} > 2)); then
        echo "${#names[@]} of them"
    elif ((all != 0)); then
        echo "${names[*]}"
    elif [[ $bounding =~ ^0+$ ]]; then
        echo "none (bounding: none)"
    else
        echo "none (bounding: some)"
    fi
}

seccomp() {
    case $(field "$1" Seccomp) in
        0) echo "0 (no filter)" ;;
        1) echo "1 (strict)" ;;
        2) echo "2 (filter)" ;;
        *) echo "?" ;;
    esac
}

network() {
    local mine theirs
    mine=$(stat -L -c %i -- "/proc/$1/ns/net" 2>/dev/null) || mine='?'
    theirs=$(stat -L -c %i -- "/run/netns/${spaces[0]}")
    if [[ $mine == "$theirs" ]]; then
        echo "of site a"
    elif [[ $(awk 'NR > 2 { print $1 }' "/proc/$1/net/dev" 2>/dev/null) == lo: ]]; then
        echo "empty (only lo)"
    else
        echo "another: $mine"
    fi
}

# describe PID ROLE: the lines of a box.
describe() {
    local ids name
    name=$(readlink -- "/proc/$1/exe" 2>/dev/null) || name='?'
    name=${name% (deleted)}
    ids=$(field "$1" Uid)
    # shellcheck disable=SC2086 # Four numbers, split on purpose: real, effective, saved, file system.
    set -- "$1" "$2" $ids
    ids="$3 $4 $5 $6"
    [[ "$3 $3 $3" != "$4 $5 $6" ]] || ids="$3 ($(id -nu "$3" 2>/dev/null || echo 'no name'))"
    printf '%-14s%15s\n' "${name##*/}" "$2"
    printf 'pid      %s\n' "$1"
    printf 'uid      %s\n' "$ids"
    printf 'caps     %s\n' "$(capabilities "$1")"
    printf 'seccomp  %s\n' "$(seccomp "$1")"
    printf 'network  %s\n' "$(network "$1")"
}

# Sets `picture`: the three processes of site a.
draw() {
    local -a supervisor helper worker
    local edge='+--------------------------------+' indent
    local -i i
    printf -v indent '%44s' ''
    mapfile -t supervisor < <(describe "$(pid_of "$json_a" supervisor)" supervisor)
    mapfile -t helper < <(describe "$(pid_of "$json_a" helper)" helper)
    mapfile -t worker < <(describe "$(pid_of "$json_a" worker)" worker)
    picture=$(
        echo "$edge          $edge"
        for i in "${!supervisor[@]}"; do
            if ((i == 1)); then between='-- plan ->'; else between='          '; fi
            printf '| %-30s |%s| %-30s |\n' "${supervisor[i]}" "$between" "${helper[i]}"
        done
        echo "$edge          $edge"
        echo "        ^${indent:1}| open handles, one way"
        echo "        |${indent:1}v"
        echo "        |${indent:9}$edge"
        for i in "${!worker[@]}"; do
            case $i in
                0) printf '        |%35s| %-30s |\n' '' "${worker[i]}" ;;
                1) printf '        +-- heartbeat, counters, state ---->| %-30s |\n' "${worker[i]}" ;;
                *) printf '%s| %-30s |\n' "$indent" "${worker[i]}" ;;
            esac
        done
        echo "$indent$edge"
    )
}

summary() {
    printf '%s\n\n' "== ethudp: what this demo has shown ============================================"
    printf '  %-18s %s\n' "the two sites" "a  $INNER_A -- eu0 -- $OUTER_A:$PORT"
    printf '  %-18s %s\n' "" "b  $INNER_B -- eu0 -- $OUTER_B:$PORT"
    printf '  %-18s %s\n' "the tunnel" "Ethernet in UDP, wire classic, $CIPHER, MTU $MTU"
    printf '  %-18s %s\n\n' "" "both ends on this machine, which has $(nproc) CPUs"
    printf '  The processes of site a, from /proc, after its worker was replaced:\n\n'
    printf '%s\n\n' "$picture"
    printf '  %-18s %s\n' \
        "ping" "$ping_result" \
        "throughput" "$mbits Mbit/s, one TCP stream of 3 s" \
        "worker killed" "pid $worker_before by SIGKILL; pid $worker_after took over" \
        "longest silence" "$gap ms from one answer to the next, of pings sent every $STREAM_MS ms" \
        "" "(mean of the whole stream $mean ms, longest before the kill $gap_before ms)" \
        "lost on the way" "$lost of $sent pings" \
        "interface eu0" "index $index_before before, $index_after after: the same" \
        "UDP port $PORT" "socket $socket_before before, $socket_after after: the same"
}

# steps PID: everything that is shown; PID makes the names unique.
steps() {
    # A session or service that this was started from is none of the tunnels' business.
    unset NOTIFY_SOCKET CREDENTIALS_DIRECTORY LISTEN_FDS LISTEN_FDNAMES LISTEN_PID
    export LC_ALL=C
    umask 022
    local json_a='' picture user ping_result mbits gap gap_before mean sent lost
    local worker_before worker_after index_before index_after socket_before socket_after
    trap end_children EXIT
    trap 'exit 143' TERM
    trap 'printf "demo: failed in line %s: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR
    make_sites
    start_tunnels
    ping_across
    throughput
    kill_worker
    draw
    end_tunnels
    summary >"$directory/summary"
}

usage() {
    sed -n '3,9s/^# \{0,1\}//p' -- "$self"
    exit "$1"
}

((BASH_VERSINFO[0] >= 5)) || fail "this needs bash 5 or later"
built=''
case $#:${1:-} in
    0:)
        privileges
        tools
        build
        if ((EUID == 0)); then
            demo
        else
            note "from here on by sudo: demo/demo.sh --built $built"
            exec sudo -- bash -- "$self" --built "$built"
        fi
        ;;
    2:--built)
        built=$(realpath -- "$2")
        demo
        ;;
    4:--inside)
        spaces=("ethudp-demo-$2-a" "ethudp-demo-$2-b") directory=$3 built=$4
        steps
        ;;
    1:-h | 1:--help) usage 0 ;;
    *) usage 2 >&2 ;;
esac
