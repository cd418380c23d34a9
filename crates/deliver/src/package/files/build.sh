#!/bin/sh
# Builds the form of this driver that fits a kernel: `home` as it was written, or a port derived ahead of time.
# Which one fits is told by the kernel's own headers, never by its version.
# Usage: kspan-build KERNEL_BUILD_DIRECTORY [ARCH]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kdir=$1
"$here/kspan-probe" "$kdir" "${2:-}" >"$here/found.facts"
chosen= nearest= least=
for facts in "$here"/facts/*.facts; do
    different=$(sed 1,2d "$facts" | diff - "$here/found.facts" | grep -c '^[<>]') || :
    if [ "$different" -eq 0 ]; then
        chosen=$(sed -n '1s/^# form: //p' "$facts")
        break
    fi
    if [ -z "$least" ] || [ "$different" -lt "$least" ]; then nearest=$facts least=$different; fi
done
rm -rf "$here/chosen"
if [ -n "$chosen" ]; then
    echo "kspan: $chosen fits $kdir: all that it uses is there as it was derived for."
    cp -R "$here/$chosen" "$here/chosen"
elif command -v kspan >/dev/null 2>&1; then
    echo "kspan: no form in this package fits $kdir; deriving one."
    if ! kspan port "$here/home" --on "$kdir" -o "$here/chosen"; then
        echo "Error! kspan cannot port this driver to $kdir; see above for what is missing." >&2
        exit 1
    fi
else
    echo "Error! No form of this driver fits the kernel in $kdir, so nothing is built." >&2
    echo "Made for: $(sed -n 's/^# made for: //p' "$here"/facts/*.facts | tr '\n' ' ')" >&2
    echo "The nearest form (${nearest##*/}) differs in $least places, the first:" >&2
    sed 1,2d "$nearest" | diff - "$here/found.facts" | grep '^[<>]' | head -n 6 >&2
    echo "Get a package that was made for this kernel, or install kspan, which derives a form on the spot." >&2
    exit 1
fi
jobs=$(nproc 2>/dev/null || echo 1)
exec make -j"$jobs" -C "$kdir" M="$here/chosen" ${CC:+CC="$CC"} modules
