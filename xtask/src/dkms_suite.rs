//! `cargo xtask dkms-suite`: dkms' own `run_test.sh`, with kspan as the `dkms` on PATH, in a Debian root.
//!
//! The suite moves `/etc/os-release` and writes to `/lib/modules`: it never runs on the host, but in an overlay over a root that
//! mmdebstrap made, in mount and process namespaces of its own.

use anyhow::{Context, bail};
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::Instant;

/// Run dkms' own test suite with kspan as `dkms`, block by block.
///
/// Needs root. The Debian root (kernel, headers, compiler) is made once, in the cache. The suite is the one of dkms' own source:
/// `--source`, or a tarball of it in the cache under `dkms-suite/dkms.tar.gz`, or Debian's source package, which is older.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these blocks [default: all].
    blocks: Vec<String>,
    /// A directory with dkms' source, or a bare git directory of it.
    #[arg(long)]
    source: Option<PathBuf>,
    /// Run each block with the real dkms of the same source, too, and print both times.
    #[arg(long)]
    beside: bool,
    /// The kspan to test [default: the one beside this program].
    #[arg(long)]
    kspan: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The packages of the root beside Debian's minimum.
const PACKAGES: &str = "linux-image-cloud-amd64,linux-headers-cloud-amd64,kmod,openssl,patch,make,gcc,xz-utils,zstd,procps,bubblewrap";

/// One block of the suite: the word that selects it, and the banners that it prints.
struct Block {
    name: String,
    banners: Vec<String>,
}

/// How one block went.
struct Run {
    ok: bool,
    seconds: f64,
    tail: String,
}

/// Runs it.
///
/// # Errors
/// When the root or the suite cannot be had.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let home = kspan_kernel::Cache::open()?.root().join("dkms-suite");
    fs::create_dir_all(&home)?;
    let root = root(&home)?;
    let source = source(args, &home)?;
    let all = blocks(&fs::read_to_string(source.path().join("run_test.sh"))?);
    let wanted = select(all, &args.blocks)?;
    let kspan = kspan(args)?;
    let mut rows = Vec::new();
    for block in &wanted {
        let ours = trial(&home, &root, source.path(), Some(&kspan), block)?;
        let theirs = match args.beside {
            true => Some(trial(&home, &root, source.path(), None, block)?),
            false => None,
        };
        if !args.json {
            line(block, &ours, theirs.as_ref());
        }
        rows.push((block, ours, theirs));
    }
    let good = rows.iter().filter(|(_, ours, _)| ours.ok).count();
    finish(args, &rows, good)?;
    Ok(ExitCode::from(u8::from(good < rows.len())))
}

fn line(block: &Block, ours: &Run, theirs: Option<&Run>) {
    let beside = theirs.map_or(String::new(), |t| {
        let word = if t.ok { "" } else { " FAILS" };
        format!("  dkms {:6.1} s{word}", t.seconds)
    });
    let word = if ours.ok { "ok   " } else { "FAILS" };
    println!("{word} {:24} {:6.1} s{beside}", block.name, ours.seconds);
    if !ours.ok {
        println!("{}", ours.tail);
    }
}

fn finish(args: &Args, rows: &[(&Block, Run, Option<Run>)], good: usize) -> anyhow::Result<()> {
    let total: f64 = rows.iter().map(|(_, r, _)| r.seconds).sum();
    let theirs: f64 = rows
        .iter()
        .filter_map(|(_, _, r)| r.as_ref())
        .map(|r| r.seconds)
        .sum();
    if args.json {
        let blocks: Vec<_> = rows
            .iter()
            .map(|(b, ours, theirs)| {
                json!({ "block": b.name, "ok": ours.ok, "seconds": ours.seconds,
                        "dkms_ok": theirs.as_ref().map(|t| t.ok), "dkms_seconds": theirs.as_ref().map(|t| t.seconds) })
            })
            .collect();
        let out = json!({ "blocks": blocks, "passed": good, "n": rows.len(), "seconds": total, "dkms_seconds": theirs });
        println!("{}", serde_json::to_string_pretty(&out)?);
        return Ok(());
    }
    let beside = if args.beside {
        format!(", dkms {theirs:.1} s")
    } else {
        String::new()
    };
    println!("{good} of {} blocks pass; {total:.1} s{beside}", rows.len());
    Ok(())
}

fn kspan(args: &Args) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("kspan");
    let kspan = args.kspan.clone().unwrap_or(beside);
    if !kspan.is_file() {
        bail!(
            "{}: no kspan there; `cargo build -p kspan`, or name one with --kspan",
            kspan.display()
        );
    }
    Ok(kspan)
}

/// The Debian root, made if it is not there.
fn root(home: &Path) -> anyhow::Result<PathBuf> {
    let root = home.join("root");
    if root.join("lib/modules").is_dir() {
        return Ok(root);
    }
    eprintln!("making a Debian root in {} (once)", root.display());
    let staged = home.join(format!(".root-{}", std::process::id()));
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=apt", &format!("--include={PACKAGES}"), "trixie"])
        .arg(&staged)
        .arg("http://deb.debian.org/debian");
    checked(&mut command)
        .context("mmdebstrap, as root and with a network, makes the root of the suite")?;
    fs::rename(&staged, &root)?;
    Ok(root)
}

/// A directory with dkms' source.
fn source(args: &Args, home: &Path) -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("suite-source-")
        .tempdir_in(home)?;
    let tarball = home.join("dkms.tar.gz");
    match &args.source {
        Some(path) if path.join("run_test.sh").is_file() => {
            checked(
                Command::new("cp")
                    .arg("-a")
                    .arg(path.join("."))
                    .arg(dir.path()),
            )?;
        }
        Some(path) => {
            let made = dir.path().join(".tar");
            let mut command = Command::new("git");
            command
                .arg("--git-dir")
                .arg(path)
                .args(["archive", "HEAD", "-o"])
                .arg(&made);
            checked(&mut command)
                .context("--source: neither dkms' source nor a git directory of it")?;
            checked(
                Command::new("tar")
                    .arg("-xf")
                    .arg(&made)
                    .arg("-C")
                    .arg(dir.path()),
            )?;
        }
        None => {
            if !tarball.is_file() {
                fetch(&tarball)?;
            }
            let mut command = Command::new("tar");
            command.arg("-xf").arg(&tarball).arg("-C").arg(dir.path());
            checked(command.arg("--strip-components=1"))?;
        }
    }
    if !dir.path().join("run_test.sh").is_file() {
        bail!("the source of dkms at hand has no run_test.sh");
    }
    Ok(dir)
}

/// Debian's source tarball of dkms, whatever version it has.
fn fetch(tarball: &Path) -> anyhow::Result<()> {
    eprintln!("fetching Debian's dkms source; its suite may be older than what kspan is built for");
    let url = "http://deb.debian.org/debian/pool/main/d/dkms/dkms_3.2.2.orig.tar.gz";
    let staged = tarball.with_extension("part");
    checked(
        Command::new("curl")
            .args(["-fsSL", "-o"])
            .arg(&staged)
            .arg(url),
    )?;
    fs::rename(&staged, tarball)?;
    Ok(())
}

/// The blocks of run_test.sh, from its own text: a name it does not know would run nothing and succeed.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("if [[ ! $only || $only = ") {
            blocks.push(Block {
                name: rest.split(' ').next().unwrap_or_default().to_owned(),
                banners: Vec::new(),
            });
        } else if let Some(rest) = line.trim().strip_prefix("echo '*** ")
            && let Some(block) = blocks.last_mut()
        {
            let words = rest
                .trim_end_matches('\'')
                .replace("'\"'", "'")
                .replace("'\"", "")
                .replace("\"'", "");
            block.banners.push(words);
        }
    }
    blocks
}

fn select(all: Vec<Block>, wanted: &[String]) -> anyhow::Result<Vec<Block>> {
    if wanted.is_empty() {
        return Ok(all);
    }
    let names: Vec<String> = all.iter().map(|b| b.name.clone()).collect();
    if let Some(odd) = wanted.iter().find(|w| !names.contains(w)) {
        bail!("the suite has no block {odd}; it has: {}", names.join(" "));
    }
    Ok(all
        .into_iter()
        .filter(|b| wanted.contains(&b.name))
        .collect())
}

/// What runs inside of the namespaces. `$1` the lower root, `$2` the work directory, `$3` the block.
const INSIDE: &str = r#"
set -e
M=$2/root
mount -t overlay overlay -o "lowerdir=$2/over:$1,upperdir=$2/upper,workdir=$2/work" "$M"
mount -t proc proc "$M/proc"; mount -t sysfs sys "$M/sys"; mount --rbind /dev "$M/dev"; mount -t tmpfs tmpfs "$M/tmp"
K=$(ls "$M/lib/modules" | head -n 1)
exec chroot "$M" /usr/bin/env -i HOME=/root LC_ALL=C PATH=/opt/drop:/usr/sbin:/usr/bin:/sbin:/bin KERNEL_VER="$K" \
  /bin/bash -c 'cd /root/suite && exec ./run_test.sh "$@"' bash "$3"
"#;

/// One block in a fresh overlay; with the real dkms where no kspan is given.
fn trial(
    home: &Path,
    root: &Path,
    source: &Path,
    kspan: Option<&Path>,
    block: &Block,
) -> anyhow::Result<Run> {
    let work = tempfile::Builder::new().prefix("suite-").tempdir_in(home)?;
    let over = work.path().join("over");
    for dir in [
        "upper",
        "work",
        "root",
        "over/opt/drop",
        "over/root",
        "over/var/lib/dkms",
        "over/etc/dkms",
    ] {
        fs::create_dir_all(work.path().join(dir))?;
    }
    let suite = over.join("root/suite");
    checked(Command::new("cp").arg("-a").arg(source).arg(&suite))?;
    fs::set_permissions(&suite, fs::Permissions::from_mode(0o755))?;
    match kspan {
        Some(kspan) => {
            fs::copy(kspan, over.join("opt/drop/kspan"))?;
            symlink("kspan", over.join("opt/drop/dkms"))?;
            hook(&over)?;
        }
        None => real(&suite, &over)?,
    }
    let started = Instant::now();
    let output = apart(INSIDE)
        .args([
            root.as_os_str(),
            work.path().as_os_str(),
            OsStr::new(&block.name),
        ])
        .output()
        .context("unshare (util-linux)")?;
    Ok(judge(&output, block, started.elapsed().as_secs_f64()))
}

/// A script with mounts and processes of its own, which end with it; its arguments follow.
pub(crate) fn apart(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["bash", "-c", script, "bash"]);
    command
}

/// The suite tests dkms_autoinstaller where it is there.
fn hook(over: &Path) -> anyhow::Result<()> {
    let ours =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/deliver/hooks/dkms_autoinstaller");
    let place = over.join("usr/lib/dkms");
    fs::create_dir_all(&place)?;
    fs::copy(&ours, place.join("dkms_autoinstaller"))
        .with_context(|| ours.display().to_string())?;
    Ok(())
}

/// dkms itself, from the same source.
fn real(suite: &Path, over: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("make");
    command
        .arg("-s")
        .arg("-C")
        .arg(suite)
        .args(["dkms", "dkms_autoinstaller"]);
    checked(&mut command)?;
    program(&suite.join("dkms"), &over.join("opt/drop/dkms"))?;
    let place = over.join("usr/lib/dkms");
    fs::create_dir_all(&place)?;
    program(
        &suite.join("dkms_autoinstaller"),
        &place.join("dkms_autoinstaller"),
    )?;
    Ok(())
}

/// Copies a script that make wrote without the right to run it.
fn program(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The exit status, every banner, and the last line: one of them alone can be right by chance.
fn judge(output: &Output, block: &Block, seconds: f64) -> Run {
    let text = String::from_utf8_lossy(&output.stdout);
    let banners = !block.banners.is_empty() && block.banners.iter().all(|b| text.contains(b));
    let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = all.lines().collect();
    Run {
        ok: output.status.success() && banners && text.contains("All tests successful"),
        seconds,
        tail: lines
            .get(lines.len().saturating_sub(40)..)
            .unwrap_or_default()
            .join("\n"),
    }
}

fn checked(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "{:?} failed: {}",
            command.get_program(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "if [[ ! $only || $only = basic ]]; then\necho '*** Testing a'\nfi\nif [[ ! $only || $only = x-y ]]; then\n    echo '*** Testing '\"'b'\"' c'\n";

    #[test]
    fn blocks_and_banners_are_read_from_the_suite() {
        let blocks = blocks(TEXT);
        assert_eq!(
            blocks.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(),
            ["basic", "x-y"]
        );
        assert_eq!(blocks[0].banners, ["Testing a"]);
        assert_eq!(blocks[1].banners, ["Testing 'b' c"]);
    }

    #[test]
    fn a_block_that_the_suite_does_not_have_is_refused() {
        assert!(select(blocks(TEXT), &["nonsense".to_owned()]).is_err());
    }
}
