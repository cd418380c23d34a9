# Runs one driver's smoke test: `sh smoke.sh DIRECTORY`. The test ends with `pass [NOTE]` or `fail WHY`; an end without either is
# a failure. What it prints is kept when it fails.

pass() {
    echo "$*" >/run/pass
    exit 0
}

fail() {
    echo "$*" >/run/fail
    exit 1
}

# wait_for SECONDS COMMAND...: until the command succeeds. Its rounds are not traced.
wait_for() {
    { set +x; } 2>/dev/null
    left=$(($1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        if [ $left -le 0 ]; then break; fi
        sleep 0.2
    done
    set -x
    [ $left -gt 0 ]
}

# ask VERB...: what only the host can do; its answer. See protocol.rs for the verbs.
ask() {
    echo "?$*" >&3
    read -r answer <&3
    echo "$answer"
}

# driven_by MODULE CLASS: names of the class (net, block, ...) whose device is driven by that module.
driven_by() {
    { set +x; } 2>/dev/null
    for entry in /sys/class/"$2"/*; do
        dir=$(readlink -f "$entry/device" || true)
        while [ -n "$dir" ] && [ "$dir" != /sys ] && [ "$dir" != / ]; do
            if [ "$(basename "$(readlink -f "$dir/driver/module" || true)")" = "$1" ]; then
                basename "$entry"
                break
            fi
            dir=$(dirname "$dir")
        done
    done
}

has_driven() { [ -n "$(driven_by "$1" "$2")" ]; }

# ping_gateway MODULE: brings the module's interface up and pings QEMU's gateway.
ping_gateway() {
    wait_for 20 has_driven "$1" net || fail "no network interface is driven by $1"
    dev=$(driven_by "$1" net | head -n1)
    ip link set lo up
    ip link set "$dev" up
    ip addr add 10.0.2.15/24 dev "$dev"
    wait_for 20 ping -c 1 -W 2 -I "$dev" 10.0.2.2 || fail "the gateway does not answer on $dev"
    ping -c 4 -s 1400 -W 5 -I "$dev" 10.0.2.2 || fail "large packets are lost on $dev"
    ip link set "$dev" down
}

# write_and_compare DEVICE: two mebibytes of noise onto the disk, past the page cache, and back.
write_and_compare() {
    dd if=/dev/urandom of=/tmp/noise bs=64k count=32
    dd if=/tmp/noise of="$1" bs=64k conv=fsync
    echo 3 >/proc/sys/vm/drop_caches
    dd if="$1" of=/tmp/back bs=64k count=32
    cmp /tmp/noise /tmp/back || fail "what was read from $1 is not what was written"
}

# disk_works MODULE: the first disk that the module drives.
disk_works() {
    wait_for 30 has_driven "$1" block || fail "no disk is driven by $1"
    write_and_compare "/dev/$(driven_by "$1" block | head -n1)"
}

PATH=/kspan/bin:$PATH
# This shell takes its own `ip` before any in PATH; a function comes before both.
for program in /kspan/bin/*; do
    case ${program##*/} in
    *[!a-z0-9_]*) ;;
    *) eval "${program##*/}() { $program \"\$@\"; }" ;;
    esac
done
set -e
cd /tmp
set -x
. "$1/smoke"
