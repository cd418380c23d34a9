#!/bin/sh
# Makes a Debian machine ready to build and run kspan. Looks first, installs only what is missing, and is silent and
# needs no network when nothing is. Other systems: install the same programs by other means; it then finds them.
set -eu

rust_wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")

has_program() { command -v "$1" >/dev/null 2>&1; }

# The places that the facts room looks in, too. libclang-cpp, which other packages bring, is another library.
has_libclang() {
    for dir in /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 "${LIBCLANG_PATH:-/nowhere}"; do
        ls "$dir"/libclang.so* "$dir"/libclang-[0-9]*.so* 2>/dev/null
    done | grep -q .
}

has_header() { echo "#include <$1>" | gcc -E - >/dev/null 2>&1; }
has_library() { ls /usr/lib/*/"$1" /lib/*/"$1" /usr/lib64/"$1" 2>/dev/null | grep -q .; }

# need PACKAGE CHECK...: what the package is for stands beside it.
missing=
need() {
    package=$1
    shift
    "$@" || missing="$missing $package"
}
need gcc has_program gcc                                        # modules of older kernels; the linker of cargo
need libc6-dev has_header stdlib.h                              # the same
need make has_program make                                      # kbuild
need libelf1 has_library libelf.so.1                            # objtool of the kernels' kbuild packages
need libclang1-14 has_libclang                                  # facts
need bubblewrap has_program bwrap                               # every build runs in a sandbox
need mmdebstrap has_program mmdebstrap                          # a compiler that this machine does not have
need qemu-system-x86 has_program qemu-system-x86_64             # kspan test: machines
need swtpm has_program swtpm                                    # a TPM beside them
need busybox-static has_program busybox                         # what runs in them
need iproute2 has_program ip                                    # the suite's CAN drivers, in them
need can-utils has_program cansend                              # the same
need alsa-utils has_program aplay                               # its sound drivers
need cpio has_program cpio                                      # reads the tests' archives
need gpgv has_program gpgv                                      # signatures of the archive
need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt # cargo's downloads

if [ -n "$missing" ]; then
    if ! has_program apt-get; then
        echo "setup: missing here:$missing (names of Debian packages), and there is no apt-get to install them" >&2
        exit 3
    fi
    if [ "$(id -u)" != 0 ]; then
        echo "setup: missing here:$missing. Run \`sudo scripts/setup.sh\`, or: sudo apt-get install$missing" >&2
        exit 3
    fi
    echo "setup: installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    # shellcheck disable=SC2086 # a list of words
    apt-get -qq install -y --no-install-recommends $missing >/dev/null
fi

here=$(cd "$(dirname "$0")/.." && pwd)
PATH="$here/.toolchain/bin:$PATH" # what scripts/toolchain.sh made; the Makefile looks there first, too

rust_here() { rustc --version 2>/dev/null | cut -d' ' -f2 | cut -d- -f1; }
rust_is_new_enough() {
    has_program cargo && [ "$(printf '%s\n%s\n' "$rust_wanted" "$(rust_here)" | sort -V | head -n1)" = "$rust_wanted" ]
}

if ! rust_is_new_enough; then
    if ! has_program apt-get; then
        echo "setup: kspan needs Rust $rust_wanted or newer, here is: $(rust_here | grep . || echo none). Install it by other means, rustup for one" >&2
        exit 3
    fi
    "$here/scripts/toolchain.sh" "$here/.toolchain"
fi
if ! rust_is_new_enough; then
    echo "setup: Rust $(rust_here) is too old: kspan needs $rust_wanted or newer (\`rustup update stable\`)" >&2
    exit 3
fi
