//! Imports N random modules of a kernel tree and builds each on its own kernel: `import_check N SEED [--multi] [--dry]`,
//! or named ones: `import_check --path PATH…`.
//!
//! `KSPAN_TREE` is the source tree, `KSPAN_KDIR` the header tree, `KSPAN_BUILD` the command that builds (its last
//! words are the directory); without them the places of the spike are taken.

use kspan_port::driver::{Import, SourceTree, TreeModule, sample};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const TREE: &str = "/tmp/sp/src/trixie-backports/linux-source-7.3";
const KDIR: &str = "/tmp/sp/k/trixie-backports/usr/src/linux-headers-7.3.4+deb13-amd64";
const ROOT: &str = "/tmp/sp/trixie/";

fn config(kdir: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(kdir.join("include/config/auto.conf")).unwrap_or_default();
    text.lines()
        .filter_map(|l| l.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn build(kdir: &Path, dir: &Path) -> (bool, String) {
    let mut command = Command::new("bwrap");
    command.args([
        "--ro-bind",
        &format!("{ROOT}usr"),
        "/usr",
        "--ro-bind",
        &format!("{ROOT}etc"),
        "/etc",
    ]);
    for link in ["bin", "lib", "lib64", "sbin"] {
        command.args(["--symlink", &format!("usr/{link}"), &format!("/{link}")]);
    }
    command.args([
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        "--ro-bind",
        "/tmp/sp/k",
        "/tmp/sp/k",
        "--bind",
    ]);
    command
        .arg(dir)
        .arg(dir)
        .args(["--unshare-net", "--chdir"])
        .arg(dir);
    command
        .args(["make", "-j2", "-C"])
        .arg(kdir)
        .arg(format!("M={}", dir.display()))
        .arg("modules");
    match command.output() {
        Ok(out) => (
            out.status.success(),
            String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned(),
        ),
        Err(why) => (false, why.to_string()),
    }
}

fn one(
    tree: &SourceTree<'_>,
    kdir: &Path,
    module: &TreeModule,
    out: &Path,
) -> Result<(Import, f64), String> {
    let start = Instant::now();
    // A .c file would be imported as a file; a composite by its name.
    let single = module.objects.len() == 1 && module.others.is_empty();
    let path = if single {
        module.path().to_string_lossy().into_owned()
    } else {
        module.name.clone()
    };
    one_path(tree, kdir, &path, out, start)
}

fn one_path(
    tree: &SourceTree<'_>,
    kdir: &Path,
    path: &str,
    out: &Path,
    start: Instant,
) -> Result<(Import, f64), String> {
    let import = tree
        .import(path, out, "debian/7.3")
        .map_err(|e| e.to_string())?;
    let seconds = start.elapsed().as_secs_f64();
    if std::env::args().any(|w| w == "--dry") {
        return Ok((import, seconds));
    }
    let (ok, log) = build(kdir, out);
    let made = import
        .driver
        .manifest
        .modules
        .iter()
        .all(|m| out.join(format!("{m}.ko")).is_file());
    if ok && made {
        return Ok((import, seconds));
    }
    let errors: Vec<&str> = log.lines().filter(|l| l.contains("rror")).take(3).collect();
    Err(format!(
        "build failed in {}: {} {:?}",
        out.display(),
        errors.join(" | "),
        import.notes
    ))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| words.get(i).and_then(|w| w.parse::<u64>().ok());
    let (n, seed) = (number(0).unwrap_or(10), number(1).unwrap_or(1));
    let multi = words.iter().any(|w| w == "--multi");
    let tree_path = PathBuf::from(std::env::var("KSPAN_TREE").unwrap_or(TREE.into()));
    let kdir = PathBuf::from(std::env::var("KSPAN_KDIR").unwrap_or(KDIR.into()));
    let config = config(&kdir);
    let look = |name: &str| config.get(name).cloned();
    let store = std::env::temp_dir().join("kspan-import-check");
    let tree = SourceTree::open(&tree_path, &look, Some(&store))?;
    if let Some(at) = words.iter().position(|w| w == "--path") {
        for path in words.iter().skip(at + 1).filter(|w| *w != "--dry") {
            let out = tempfile::Builder::new()
                .prefix("import-path-")
                .tempdir_in(&store)?
                .keep();
            match one_path(&tree, &kdir, path, &out, Instant::now()) {
                Ok((import, s)) => println!(
                    "ok   {path} in {} ({s:.2} s): {:?} notes {:?}",
                    out.display(),
                    import.driver.manifest,
                    import.notes
                ),
                Err(why) => println!("FAIL {path} {why}"),
            }
        }
        return Ok(());
    }
    let start = Instant::now();
    let all = tree.modules()?;
    let single = all
        .iter()
        .filter(|m| m.objects.len() == 1 && m.others.is_empty())
        .count();
    println!(
        "{} modules, {single} of one file, in {:.1} s",
        all.len(),
        start.elapsed().as_secs_f64()
    );
    let work = tempfile::Builder::new()
        .prefix("import-check-")
        .tempdir_in(&store)?;
    let (mut good, mut bad) = (0, 0);
    for module in sample(all, usize::try_from(n)?, seed, multi) {
        let out = work.path().join(&module.name);
        match one(&tree, &kdir, &module, &out) {
            Ok((import, seconds)) => {
                good += 1;
                let m = &import.driver.manifest;
                println!(
                    "ok   {} ({seconds:.2} s) own {:?} private {:?} {:?}",
                    module.path().display(),
                    m.config,
                    m.private_headers,
                    import.notes
                );
                let _ = std::fs::remove_dir_all(&out);
            }
            Err(why) => {
                bad += 1;
                println!("FAIL {} {why}", module.path().display());
            }
        }
    }
    println!("{good} of {} build", good + bad);
    if bad > 0 {
        println!("failed ones are left in {}", work.keep().display());
    }
    Ok(())
}
