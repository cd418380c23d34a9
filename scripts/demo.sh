#!/bin/sh
# The main job from end to end: four Debian kernels, a dozen drivers of the newest, the matrix. Everything made here lies
# in build/demo and in kspan's cache; a second run takes up what is there.
set -eu
cd "$(dirname "$0")/.."

kspan="${KSPAN:-target/release/kspan}"
demo="${KSPAN_DEMO:-build/demo}"
home=trixie-backports
suites="bullseye bookworm trixie trixie-backports"
kernels=bullseye,bookworm,trixie,trixie-backports

# Different subsystems, small and large; paths in the newest kernel's source tree.
drivers="
drivers/accel/habanalabs
drivers/net/ethernet/intel/e1000e
drivers/net/ethernet/realtek/8139too.c
drivers/net/can/usb/gs_usb.c
drivers/gpu/drm/tiny/bochs.c
drivers/hwmon/lm75.c
drivers/i2c/busses/i2c-i801.c
drivers/iio/accel/bma180.c
drivers/input/joystick/xpad.c
drivers/rtc/rtc-ds1307.c
drivers/usb/serial/ftdi_sio.c
drivers/watchdog/i6300esb.c
sound/pci/ens1371.c
"

started=$(date +%s)
step() { printf '\n== %s [%s s]\n' "$*" $(($(date +%s) - started)) >&2; }

kernel_id() { "$kspan" kernel show "$1" | sed -n 's/^kernel *//p'; }

# What each suite holds now; without a network, what was fetched before.
fetch() {
    "$kspan" kernel fetch "$@" && return
    echo "demo: the archive did not answer; going on with the kernels that are here" >&2
}

# import TREE PATH DIR: the driver as it stands in that kernel's source, unless it is here already.
import() {
    if ! grep -qF "\"$(kernel_id "$1")\"" "$3/kspan.toml" 2>/dev/null; then
        rm -rf "$3"
        "$kspan" init --from-tree "$1" "$2" -o "$3"
    fi
}

# The cells that fail are part of the picture: exit code 1 is an answer, anything else is not.
matrix() {
    "$kspan" build "$@" || [ $? = 1 ]
}

step "kernels: $suites"
# shellcheck disable=SC2086 # lists of words, here and below
fetch $(printf 'debian/%s ' $suites)
fetch --source debian/$home debian/bookworm
"$kspan" kernel list

step "drivers, from the source of $(kernel_id $home)"
mkdir -p "$demo/drivers" "$demo/ports"
dirs=
for path in $drivers; do
    name=$(basename "$path" .c)
    import $home "$path" "$demo/drivers/$name"
    dirs="$dirs $demo/drivers/$name"
done
import bookworm drivers/misc/habanalabs "$demo/drivers/habanalabs-6.1"

step "the matrix: each driver on each kernel"
matrix $dirs --on $kernels >"$demo/matrix.txt"
matrix $dirs --on $kernels --json >"$demo/matrix.json"
sed '/^$/q' "$demo/matrix.txt"

step "habanalabs of 6.1 on 5.10"
matrix "$demo/drivers/habanalabs-6.1" --on bullseye,bookworm >"$demo/habanalabs-6.1.txt"
cat "$demo/habanalabs-6.1.txt"

step "one port: xpad on $(kernel_id bookworm)"
rm -rf "$demo/ports/xpad"
"$kspan" port "$demo/drivers/xpad" --on bookworm -o "$demo/ports/xpad" --diff || [ $? = 1 ]

step "done"
cat <<END
Where everything lies:
  $demo/matrix.txt              the matrix with every open gap and risk (matrix.json: the same as data)
  $demo/habanalabs-6.1.txt      the 6.1 habanalabs on 5.10
  $demo/drivers/                the drivers as imported, each with its kspan.toml
  $demo/ports/xpad/             a port: plain Kbuild, and port.json with every remedy and risk
  kernels and results           in $("$kspan" kernel show $home | sed -n 's/^build *//p' | sed 's,/kernels/.*,,')
Try next:
  $kspan check $demo/drivers/e1000e --on bookworm
  $kspan port $demo/drivers/e1000e --on bookworm -o /tmp/e1000e-6.1 --diff
END
