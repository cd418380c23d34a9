//! An `.rpm`, made by the crate of that name. The same payload gives the same bytes.

use super::payload::{About, Payload};
use ::rpm::{BuildConfig, CompressionWithLevel, Dependency, FileOptions, PackageBuilder};

/// The package's bytes.
///
/// # Errors
/// Whatever the format forbids, in the crate's words.
pub fn rpm(about: &About, payload: &Payload, licence: &str) -> Result<Vec<u8>, ::rpm::Error> {
    let arch = match about.architecture.as_str() {
        "all" => "noarch",
        "amd64" => "x86_64",
        other => other,
    };
    // rpm keeps `-` for what separates the release.
    let version = about.version.replace('-', "_");
    let mut builder = PackageBuilder::new(&about.name, &version, licence, arch, &about.summary);
    let epoch = u32::try_from(about.epoch).unwrap_or(u32::MAX);
    builder
        .using_config(
            BuildConfig::v4()
                .source_date(epoch)
                .compression(CompressionWithLevel::Gzip(9)),
        )
        .release("1")
        .description(about.description.clone())
        .packager(about.maintainer.clone())
        .group("System/Kernel")
        .add_changelog_entry(
            format!("{} - {version}-1", about.maintainer),
            "- Packaged by kspan.",
            epoch,
        )
        .build_host("kspan");
    depends(&mut builder, about);
    scripts(&mut builder, about);
    for (place, file) in &payload.files {
        let mode = if file.executable { 0o755 } else { 0o644 };
        let mut options = FileOptions::new(place.display().to_string()).permissions(mode);
        if place.starts_with("/usr/share/doc") {
            options = options.doc();
        }
        builder.with_file_contents(file.content.clone(), options)?;
    }
    let mut out = Vec::new();
    builder.build()?.write(&mut out)?;
    Ok(out)
}

fn depends(builder: &mut PackageBuilder, about: &About) {
    for (name, version) in &about.depends.rpm {
        builder.requires(match version {
            Some(version) => Dependency::eq(name, version),
            None => Dependency::any(name),
        });
    }
    for (name, version) in &about.depends.rpm_provides {
        builder.provides(Dependency::eq(name, version));
    }
    for name in &about.depends.rpm_supplements {
        builder.supplements(Dependency::any(name));
    }
}

fn scripts(builder: &mut PackageBuilder, about: &About) {
    let scripts = &about.scripts;
    if !scripts.rpm_post.is_empty() {
        builder.post_install_script(scripts.rpm_post.as_str());
    }
    if !scripts.rpm_preun.is_empty() {
        builder.pre_uninstall_script(scripts.rpm_preun.as_str());
    }
    if !scripts.rpm_postun.is_empty() {
        builder.post_uninstall_script(scripts.rpm_postun.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_payload_gives_the_same_bytes() {
        let mut payload = Payload::default();
        payload.put("/usr/src/x-1/x.c", "int x;\n");
        let about = About {
            name: "x-dkms".into(),
            version: "1-2".into(),
            architecture: "all".into(),
            summary: "x".into(),
            epoch: 1_700_000_000,
            ..About::default()
        };
        let bytes = rpm(&about, &payload, "GPL-2.0-only").unwrap();
        assert_eq!(bytes, rpm(&about, &payload, "GPL-2.0-only").unwrap());
        let read = ::rpm::Package::parse(&mut bytes.as_slice()).unwrap();
        assert_eq!(read.metadata.get_version().unwrap(), "1_2");
    }
}
