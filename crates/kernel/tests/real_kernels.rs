//! Builds on real kernels: runs only where `KSPAN_CACHE` names a cache that holds some. Never fetches.

use kspan_kernel::{Cache, KbuildOptions, Kernel};
use std::fs;
use std::path::Path;
use std::time::Duration;

fn cache() -> Option<Cache> {
    let dir = std::env::var_os("KSPAN_CACHE").filter(|v| !v.is_empty())?;
    Cache::at(Path::new(&dir)).ok()
}

/// Every kernel whose toolchain has been found already.
fn kernels(cache: &Cache) -> Vec<Kernel> {
    let all = cache.kernels().unwrap();
    all.into_iter()
        .filter(|k| cache.info(k).unwrap().toolchain.is_some())
        .collect()
}

fn module(dir: &Path, body: &str) {
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(
        dir.join("Kbuild"),
        "obj-m := two.o\ntwo-y := main.o sub/helper.o\nccflags-y := -I$(src)/sub\n",
    )
    .unwrap();
    fs::write(
        dir.join("main.c"),
        format!("#include <linux/module.h>\n#include \"helper.h\"\n{body}\nmodule_init(start);\nMODULE_LICENSE(\"GPL\");\n"),
    )
    .unwrap();
    fs::write(dir.join("sub/helper.h"), "int helper(void);\n").unwrap();
    fs::write(
        dir.join("sub/helper.c"),
        "#include \"helper.h\"\nint helper(void) { return 0; }\n",
    )
    .unwrap();
}

#[test]
fn a_module_of_two_files_builds_and_tells_its_commands() {
    let Some(cache) = cache() else { return };
    for kernel in kernels(&cache) {
        let dir = tempfile::tempdir().unwrap();
        module(
            dir.path(),
            "static int __init start(void) { return helper(); }",
        );
        let pool = jobserver::Client::new(2).unwrap();
        let options = KbuildOptions {
            jobserver: Some(pool),
            ..KbuildOptions::default()
        };
        let build = cache.kbuild(&kernel, dir.path(), &options).unwrap();
        assert!(build.ok, "{}: {}", kernel.id, build.log);
        assert!(
            !build.log.contains("jobserver unavailable"),
            "{}: {}",
            kernel.id,
            build.log
        );
        assert_eq!(build.modules, [Path::new("two.ko")], "{}", kernel.id);
        let sources: Vec<&Path> = build.commands.iter().map(|c| c.source.as_path()).collect();
        assert_eq!(
            sources,
            [Path::new("main.c"), Path::new("sub/helper.c")],
            "{}",
            kernel.id
        );
        let main = &build.commands[0];
        assert!(
            main.headers.iter().all(|h| h.is_absolute() && h.exists()),
            "{}: {:?}",
            kernel.id,
            main.headers
        );
        assert!(
            main.headers.iter().any(|h| h.ends_with("sub/helper.h")),
            "{}",
            kernel.id
        );
        assert!(
            main.args
                .iter()
                .filter_map(|a| a.strip_prefix("-I"))
                .all(|p| p.starts_with('/')),
            "{}: {:?}",
            kernel.id,
            main.args
        );
    }
}

#[test]
fn the_arguments_told_compile_the_file_again() {
    let Some(cache) = cache() else { return };
    for kernel in kernels(&cache) {
        let dir = tempfile::tempdir().unwrap();
        module(
            dir.path(),
            "static int __init start(void) { return helper(); }",
        );
        let build = cache
            .kbuild(&kernel, dir.path(), &KbuildOptions::default())
            .unwrap();
        let cc = cache.toolchain(&kernel).unwrap().cc;
        for command in &build.commands {
            let mut gcc = cache.sandboxed(&kernel, &cc, dir.path(), &[]).unwrap();
            let output = gcc
                .args(&command.args)
                .arg("-fsyntax-only")
                .arg(&command.source)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}: {}",
                kernel.id,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

#[test]
fn a_broken_module_is_an_answer_with_diagnostics() {
    let Some(cache) = cache() else { return };
    let Some(kernel) = kernels(&cache).into_iter().next() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    module(
        dir.path(),
        "static int __init start(void) { return no_such_function_here(); }",
    );
    let options = KbuildOptions {
        json_diagnostics: true,
        keep_going: true,
        ..KbuildOptions::default()
    };
    let build = cache.kbuild(&kernel, dir.path(), &options).unwrap();
    assert!(!build.ok);
    assert!(build.modules.is_empty());
    assert!(
        build.log.contains("no_such_function_here") && build.log.contains("\"kind\""),
        "{}",
        build.log
    );
    assert_eq!(build.commands.len(), 1, "only the other file was compiled");
}

#[test]
fn a_build_cannot_write_outside_nor_reach_the_network() {
    let Some(cache) = cache() else { return };
    let Some(kernel) = kernels(&cache).into_iter().next() else {
        return;
    };
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let victim = other.path().join("victim");
    let script = format!(
        "echo x > {} ; echo x > {}/x ; echo x > /usr/x ; cat /proc/net/route | wc -l ; ls {} && env",
        victim.display(),
        kernel.build_dir.display(),
        cache.root().join("kernels").display()
    );
    let mut sh = cache.sandboxed(&kernel, "sh", dir.path(), &[]).unwrap();
    sh.env("SECRET", "s");
    let output = sh
        .arg("-c")
        .arg(script)
        .env_remove("SECRET")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !victim.exists() && !kernel.build_dir.join("x").exists() && !Path::new("/usr/x").exists()
    );
    assert!(
        text.starts_with("1\n"),
        "only the header of the routing table: {text}"
    );
    assert!(!text.contains("HOME="), "{text}");
}

#[test]
fn a_kbuild_that_hangs_is_stopped_with_all_that_it_started() {
    let Some(cache) = cache() else { return };
    let Some(kernel) = kernels(&cache).into_iter().next() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("Kbuild"),
        "X := $(shell (sleep 4; touch $(src)/late) & sleep 100)\nobj-m := a.o\n",
    )
    .unwrap();
    let options = KbuildOptions {
        timeout: Some(Duration::from_secs(2)),
        ..KbuildOptions::default()
    };
    let build = cache.kbuild(&kernel, dir.path(), &options).unwrap();
    assert!(!build.ok && build.seconds < 20.0, "{}", build.seconds);
    assert!(build.log.contains("stopped after 2 s"), "{}", build.log);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!dir.path().join("late").exists());
}

#[test]
fn builds_share_a_pool_smaller_than_they_are() {
    let Some(cache) = cache() else { return };
    let Some(kernel) = kernels(&cache).into_iter().next() else {
        return;
    };
    let pool = jobserver::Client::new(1).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let dir = tempfile::tempdir().unwrap();
                module(
                    dir.path(),
                    "static int __init start(void) { return helper(); }",
                );
                let options = KbuildOptions {
                    jobserver: Some(pool.clone()),
                    ..KbuildOptions::default()
                };
                assert!(cache.kbuild(&kernel, dir.path(), &options).unwrap().ok);
            });
        }
    });
    drop(pool.acquire().unwrap());
}
