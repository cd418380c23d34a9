#!/bin/sh
# What a kernel says of the names that this driver's ports are about. Reads headers, Module.symvers and configuration; builds
# nothing. Usage: kspan-probe KERNEL_BUILD_DIRECTORY [ARCH]
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
kdir=$(cd "$1" && pwd)
case ${2:-$(uname -m)} in
x86_64 | i?86 | x86) arch=x86 ;;
aarch64 | arm64) arch=arm64 ;;
ppc64*) arch=powerpc ;;
s390*) arch=s390 ;;
riscv*) arch=riscv ;;
*) arch=${2:-$(uname -m)} ;;
esac

# The headers' sources: here, behind a link, or where the Makefile of split headers includes from.
named=$(sed -n 's|^include \(.*\)/Makefile$|\1|p' "$kdir/Makefile" 2>/dev/null | head -n 1)
own='$(abspath $(dir $(lastword $(MAKEFILE_LIST)))'
case $named in "$own"*) named=$kdir${named#"$own"}; named=${named%)} ;; esac
src=
for dir in "$kdir" "$kdir/source" "$named"; do
    if [ -f "$dir/include/linux/module.h" ]; then src=$dir; break; fi
done
if [ -z "$src" ]; then
    echo "kspan-probe: $kdir: no kernel headers (include/linux/module.h) can be found from there" >&2
    exit 3
fi

headers() {
    while read -r header _; do
        for dir in include arch/$arch/include include/uapi arch/$arch/include/uapi; do
            [ -f "$src/$dir/$header" ] && printf 'h=%s\n%s\n' "$header" "$src/$dir/$header"
        done
        for dir in include arch/$arch/include/generated include/generated/uapi; do
            [ "$src" != "$kdir" ] && [ -f "$kdir/$dir/$header" ] && printf 'h=%s\n%s\n' "$header" "$kdir/$dir/$header"
        done
    done <"$here/probes/words"
    return 0
}

{
    headers | while read -r assignment; do
        read -r file
        awk -f "$here/probe.awk" "$here/probes/words" "$assignment" "$file"
    done
    if [ -s "$here/probes/exports" ]; then
        awk 'NR == FNR { wanted[$1] = "no"; next }
            $2 in wanted { wanted[$2] = $4 " " $5 }
            END { for (s in wanted) print "export " s "\t" wanted[s] }' "$here/probes/exports" "$kdir/Module.symvers"
    fi
    while read -r symbol; do
        value=$(sed -n "s/^$symbol=//p" "$kdir/include/config/auto.conf")
        printf 'config %s\t%s\n' "$symbol" "${value:-n}"
    done <"$here/probes/config"
    while read -r header; do
        answer=no
        for dir in "$src/include" "$src/arch/$arch/include" "$src/include/uapi" "$kdir/include"; do
            [ -f "$dir/$header" ] && answer=yes
        done
        printf 'header %s\t%s\n' "$header" "$answer"
    done <"$here/probes/headers"
} | sort -u
