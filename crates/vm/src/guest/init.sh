#!/bin/sh
# The first process of a machine that kspan boots to try drivers. It loads, reloads and runs what lies in /kspan/d, and
# reports on the second serial line, one numbered line for each thing: `@SEQ WORD ARGUMENT...`. Words: hello RELEASE;
# begin N; step N NAME; result N CHECK pass|fail [WHY]; out N TEXT; end N TAINT; bye.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /run /tmp /dev/pts
mount -t devpts devpts /dev/pts 2>/run/err
mount -t debugfs debugfs /sys/kernel/debug 2>/run/err
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1

seq=0
say() {
    seq=$((seq + 1))
    echo "@$seq $*" >&3
}

# In the kernel's own log, so that its lines can be told apart by driver even after a crash.
mark() { echo "kspan: $*" >/dev/kmsg; }

taint() { cat /proc/sys/kernel/tainted; }

loaded() { [ -d "/sys/module/$1" ]; }

# Loads one file unless the module is there; `why` tells what kept it.
load_one() {
    if loaded "$1"; then return 0; fi
    insmod "$2" 2>/run/err && return 0
    why=$(head -n1 /run/err)
    return 1
}

# The driver's modules in order; files of the driver itself come before the kernel's.
load_all() {
    for m in $cycled; do
        file=/kspan/m/$m.ko
        if [ -f "$d/$m.ko" ]; then file=$d/$m.ko; fi
        load_one "$m" "$file" || return 1
    done
}

# What is still busy (a probe under way, a device being closed) gets five seconds.
unload_all() {
    if [ -f "$d/release" ]; then sh "$d/release" >/run/out 2>&1; fi
    for m in $backwards; do
        tries=0
        while loaded "$m" && ! rmmod "$m" 2>/run/err; do
            tries=$((tries + 1))
            if [ $tries -ge 25 ]; then
                why=$(head -n1 /run/err)
                return 1
            fi
            sleep 0.2
        done
    done
}

# The modules at work are the ones that kspan built: not of the kernel's own tree, and of the very sources.
is_own() {
    while read -r m version; do
        if ! grep -q O "/sys/module/$m/taint"; then
            why="$m is not marked as out-of-tree: it is the kernel's own"
            return 1
        fi
        if [ "$version" != - ] && [ "$(cat "/sys/module/$m/srcversion")" != "$version" ]; then
            why="$m has another srcversion than the file that was built"
            return 1
        fi
    done <"$d/own"
}

reload() {
    k=1
    while [ $k -le "$cycles" ]; do
        say step "$i" "reload-$k"
        unload_all || {
            why="unloading, round $k: $why"
            return 1
        }
        load_all || {
            why="loading again, round $k: $why"
            return 1
        }
        k=$((k + 1))
    done
}

smoke() {
    rm -f /run/pass /run/fail
    timeout -s KILL "$seconds" sh /kspan/smoke.sh "$d" >/run/out 2>&1
    code=$?
    if [ -f /run/pass ]; then
        why=$(head -n1 /run/pass)
        return 0
    fi
    if [ -f /run/fail ]; then
        why=$(head -n1 /run/fail)
    elif [ $code = 137 ]; then
        why="not done after $seconds seconds"
    elif [ $code = 0 ]; then
        why="the script ended without pass"
    else
        why="exit status $code"
    fi
    tail -n 12 /run/out | while read -r line; do echo "@- out $i $line" >&3; done
    return 1
}

# check NAME COMMAND: runs it and reports.
check() {
    say step "$i" "$1"
    why=
    if "$2"; then
        say result "$i" "$1" pass "$why"
    else
        say result "$i" "$1" fail "$why"
        return 1
    fi
}

needs() {
    for m in $before; do
        load_one "$m" "/kspan/m/$m.ko" || {
            why="$m of the kernel: $why"
            return 1
        }
    done
}

# Objects in the kernel's memory whose allocator is code that is gone, as lines `CACHE COUNT`: the kernel keeps for each object who
# allocated it (slub_debug=U), and has a bare address for a module that was unloaded. Before 5.14 that is a file in sysfs, which ends
# after a page and tells too little.
orphans() {
    grep -sHE '^ *[0-9]+ 0x' /sys/kernel/debug/slab/*/alloc_traces |
        sed -n 's|.*/\([^/]*\)/alloc_traces: *\([0-9]*\) 0x.*|\1 \2|p'
}

counted() { awk '{ n += $2 } END { print n + 0 }' "$1"; }

# What every load leaves behind is a leak; what is left once may have been handed to the kernel, and is only noted.
slab() {
    tries=0
    while :; do
        # It takes its time to read who allocated what: the host is to know that somebody is at it.
        say step "$i" "slab-$tries"
        orphans >/run/orphans
        left=$(($(counted /run/orphans) - before_count))
        if [ $left -le "$cycles" ] || [ $tries -ge 2 ]; then break; fi
        tries=$((tries + 1))
        sleep 1
    done
    if [ $left -gt 0 ]; then
        why="$left objects of the unloaded driver remain: $(sort -k2nr /run/orphans | head -n3 | tr '\n' ' ')"
    fi
    [ $left -le "$cycles" ]
}

# Whether this kernel tells.
tells_allocators() { grep -qsE '^ *[0-9]+ [a-z_]' /sys/kernel/debug/slab/kmalloc-64/alloc_traces; }

try() {
    d=$1
    i=${d##*/}
    before=$(cat "$d/before")
    cycled=$(cat "$d/cycled")
    backwards=$(cat "$d/backwards")
    seconds=$(cat "$d/seconds")
    cycles=$(cat "$d/cycles")
    mark "begin $i"
    say begin "$i"
    orphans >/run/orphans
    before_count=$(counted /run/orphans)
    if check needs needs && check load load_all && check own is_own; then
        check reload reload || load_all
        mark "smoke $i"
        if [ -f "$d/smoke" ]; then check smoke smoke; fi
        if check unload unload_all && tells_allocators; then check slab slab; fi
    fi
    mark "end $i"
    say end "$i" "$(taint)"
}

say hello "$(uname -r)" "$(taint)"
for dir in /kspan/d/*; do
    try "$dir"
    # A kernel that has warned, oopsed or locked up is no judge of the next driver; bits 12 and 13 are out-of-tree and unsigned.
    if [ $(($(taint) & ~0x3000)) != 0 ]; then break; fi
done
say bye
sync
poweroff -f
