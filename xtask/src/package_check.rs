//! `cargo xtask package-check`: a package of kspan's in a Debian root, with the real dkms: installed, used, upgraded, removed.
//!
//! The root is the one of `dkms-suite`, in an overlay and in namespaces of its own; it has never heard of kspan, and its kernel is
//! none of those that the package was made for by name.

use anyhow::{Context, bail};
use kspan_kernel::Cache;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Make a dkms package of a driver twice, compare, and install, upgrade and remove it with the real dkms in a Debian root.
///
/// Needs root, and the Debian root that `cargo xtask dkms-suite` makes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The driver.
    driver: PathBuf,
    /// The kernels that the package is made for.
    #[arg(long, default_value = "6.1,6.12")]
    on: String,
    /// The kspan to use [default: the one beside this program].
    #[arg(long)]
    kspan: Option<PathBuf>,
    /// The driver's modules must not build: the package was made for other kernels, and must refuse loudly.
    #[arg(long)]
    refuses: bool,
}

/// What runs inside of the namespaces. `$1` the lower root, `$2` the work directory, `$3` the package's name, `$4` `refuses` or not.
const INSIDE: &str = r#"
set -e
M=$2/root
mount -t overlay overlay -o "lowerdir=$2/over:$1,upperdir=$2/upper,workdir=$2/work" "$M"
mount -t proc proc "$M/proc"; mount -t sysfs sys "$M/sys"; mount --rbind /dev "$M/dev"; mount -t tmpfs tmpfs "$M/tmp"
exec chroot "$M" /usr/bin/env -i HOME=/root LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/bash -c '
set -e
name=$1 K=$(ls /lib/modules | head -n 1)
say() { echo "== $*"; }
installed() { dkms status -m "$name" -k "$K" | grep -q ": installed"; }
if [ "$2" = refuses ]; then
    dpkg -i --force-depends /packages/1/*.deb >/tmp/log 2>&1 || :
    dkms build "$name/1" -k "$K" >>/tmp/log 2>&1 && { cat /tmp/log; echo "it built"; exit 1; }
    grep -h "^Error! No form of this driver fits" /tmp/log /var/lib/dkms/$name/1/build/make.log
    exit 0
fi
dpkg -i --force-depends /packages/1/*.deb >/tmp/log 2>&1 || { cat /tmp/log /var/lib/dkms/*/*/build/make.log; exit 1; }
installed || dkms install "$name/1" -k "$K" >>/tmp/log 2>&1 || { cat /tmp/log /var/lib/dkms/*/*/build/make.log; exit 1; }
installed || { say "not installed"; dkms status; exit 1; }
module=$(find /lib/modules/$K/updates -name "*.ko*" | head -n 1)
modinfo "$module" >/dev/null
say "installed: $module"; zgrep -h "^kspan:" /var/lib/dkms/$name/1/$K/*/log/make.log
dpkg -i --force-depends /packages/2/*.deb >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
dkms status -m "$name" -k "$K" | grep -q "$name/2.*: installed" || dkms install "$name/2" -k "$K" >>/tmp/log 2>&1
dkms status -m "$name" -k "$K" | grep -q "$name/1" && { say "version 1 is still there"; exit 1; }
installed || { say "not upgraded"; exit 1; }
say "upgraded"
dpkg -r "$name-dkms" >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
[ -z "$(dkms status -m "$name")" ] || { say "left in dkms: $(dkms status)"; exit 1; }
[ ! -e "$module" ] || { say "$module is left"; exit 1; }
[ ! -e "/usr/src/$name-2" ] || { say "/usr/src/$name-2 is left"; exit 1; }
say "removed"
' bash "$3" "$4"
"#;

/// Runs it.
///
/// # Errors
/// When the machine lacks what it needs, or a package cannot be made.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let cache = Cache::open()?;
    let home = cache.root().join("dkms-suite");
    let root = home.join("root");
    if !root.join("lib/modules").is_dir() {
        bail!(
            "{}: no Debian root; `cargo xtask dkms-suite dkms_conf` makes it",
            root.display()
        );
    }
    let beside = std::env::current_exe()?.with_file_name("kspan");
    let kspan = args.kspan.clone().unwrap_or(beside);
    let work = tempfile::Builder::new()
        .prefix("package-")
        .tempdir_in(&home)?;
    for dir in ["upper", "work", "root", "over/packages"] {
        fs::create_dir_all(work.path().join(dir))?;
    }
    let mut file = PathBuf::new();
    for version in ["1", "2"] {
        let out = work.path().join("over/packages").join(version);
        file = package(&kspan, args, version, &out)?;
        let again = work.path().join("again");
        let other = package(&kspan, args, version, &again)?;
        if fs::read(&file)? != fs::read(&other)? {
            println!("made twice, {} differs", file.display());
            return Ok(ExitCode::from(1));
        }
    }
    println!("made twice: the same bytes");
    let name = file
        .file_name()
        .and_then(|n| n.to_str()?.split_once("-dkms_").map(|(n, _)| n.to_owned()))
        .context("no dkms package was made")?;
    real_dkms(&cache, &work.path().join("over"))?;
    let mode = if args.refuses { "refuses" } else { "works" };
    let status = crate::dkms_suite::apart(INSIDE)
        .arg(&root)
        .arg(work.path())
        .args([&name, mode])
        .status()
        .context("unshare (util-linux)")?;
    println!("{}", if status.success() { "ok" } else { "FAILS" });
    Ok(ExitCode::from(u8::from(!status.success())))
}

/// One package in a directory of its own.
fn package(kspan: &Path, args: &Args, version: &str, out: &Path) -> anyhow::Result<PathBuf> {
    let _ = fs::remove_dir_all(out);
    let output = Command::new(kspan)
        .args([
            "package",
            "--package-version",
            version,
            "--on",
            &args.on,
            "--out",
        ])
        .arg(out)
        .arg(&args.driver)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .context("kspan")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let file = text.lines().find(|l| l.ends_with(".deb"));
    file.map(PathBuf::from)
        .context("kspan package told of no file")
}

/// dkms itself, out of Debian's package.
fn real_dkms(cache: &Cache, over: &Path) -> anyhow::Result<()> {
    let found = cache.archive_packages("trixie", &|name| name == "dkms", &|_| ())?;
    let offer = found.first().context("trixie offers no dkms")?;
    let unpacked = cache.unpacked_package(offer, &|_| ())?;
    let output = Command::new("cp")
        .arg("-a")
        .arg(unpacked.join("."))
        .arg(over)
        .output()?;
    if !output.status.success() {
        bail!("cp: {}", String::from_utf8_lossy(&output.stderr));
    }
    println!("the real dkms {}", offer.package.version);
    Ok(())
}
