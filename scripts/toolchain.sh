#!/bin/sh
# A Rust new enough for kspan, on a Debian whose own is too old and where nobody installed one: Debian's packages of a later
# release, verified by apt, unpacked into DIR and never installed. Its programs run with the libraries that lie beside
# them; what they build is linked against this machine's. Usage: toolchain.sh DIR
set -eu
dir=$1
suite=trixie
mirror=http://deb.debian.org/debian

[ -e "$dir/bin/cargo" ] && exit 0
command -v mmdebstrap >/dev/null 2>&1 || {
    echo "toolchain: mmdebstrap is missing; scripts/setup.sh installs it" >&2
    exit 3
}
mkdir -p "$(dirname "$dir")"
new=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$new"' EXIT
echo "setup: fetching Debian's Rust of $suite-backports (about 200 MB)"
mmdebstrap --quiet --variant=extract --include=cargo,rustc,rustfmt,rust-clippy \
    --aptopt="APT::Default-Release \"$suite-backports\"" --aptopt='APT::Install-Recommends "false"' \
    "$suite" "$new/root" "deb $mirror $suite main" "deb $mirror $suite-backports main"

final=$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")
mkdir "$new/bin"
for program in cargo rustc rustdoc rustfmt cargo-fmt cargo-clippy clippy-driver; do
    [ -e "$new/root/usr/bin/$program" ] || continue
    options=
    [ "$program" = rustc ] && options="--sysroot $final/root/usr"
    cat >"$new/bin/$program" <<END
#!/bin/sh
export SYSROOT=$final/root/usr
lib=$final/root/usr/lib/x86_64-linux-gnu
exec \$lib/ld-linux-x86-64.so.2 --argv0 "\$0" --library-path \$lib:\$lib/llvm $final/root/usr/bin/$program $options "\$@"
END
    chmod 755 "$new/bin/$program"
done
chmod 755 "$new"
rm -rf "$dir"
mv "$new" "$dir"
trap - EXIT
