//! A `.deb`: an ar archive of two tar archives. Pure functions; the same payload gives the same bytes.

use super::payload::{About, Payload};
use md5::{Digest, Md5};
use std::io::{Result, Write};
use std::path::Path;

/// The package's bytes.
///
/// # Errors
/// When a name does not fit into a tar header.
pub fn deb(about: &About, payload: &Payload) -> Result<Vec<u8>> {
    let mut payload = payload.clone();
    overrides(about, &mut payload);
    let payload = &payload;
    let mut out = b"!<arch>\n".to_vec();
    member(&mut out, "debian-binary", about.epoch, b"2.0\n")?;
    let control = xz(&control_tar(about, payload)?)?;
    member(&mut out, "control.tar.xz", about.epoch, &control)?;
    let data = xz(&data_tar(about, payload)?)?;
    member(&mut out, "data.tar.xz", about.epoch, &data)?;
    Ok(out)
}

/// What lintian need not say of fields of our own (lintian(1), "OVERRIDES"): Ubuntu's driver tools look for a package by Modaliases.
fn overrides(about: &About, payload: &mut Payload) {
    let lines: String = about
        .fields
        .iter()
        .map(|(field, _)| {
            format!("# Ubuntu's driver tools find a driver's package by this field.\n{}: unknown-field {field}\n", about.name)
        })
        .collect();
    if !lines.is_empty() {
        let place = Path::new("/usr/share/lintian/overrides").join(&about.name);
        payload.put(place, lines);
    }
}

fn member(out: &mut Vec<u8>, name: &str, epoch: u64, content: &[u8]) -> Result<()> {
    writeln!(
        out,
        "{name:<16}{epoch:<12}{:<6}{:<6}{:<8}{:<10}`",
        0,
        0,
        "100644",
        content.len()
    )?;
    out.extend_from_slice(content);
    if content.len() % 2 == 1 {
        out.push(b'\n');
    }
    Ok(())
}

fn xz(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn header(epoch: u64, mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(epoch);
    header.set_mode(mode);
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn owned(mut header: tar::Header) -> Result<tar::Header> {
    header.set_username("root")?;
    header.set_groupname("root")?;
    Ok(header)
}

/// `./usr/src/x`, as dpkg's own archives name it.
fn inside(place: &Path) -> String {
    format!("./{}", place.display().to_string().trim_start_matches('/'))
}

fn data_tar(about: &About, payload: &Payload) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let dir = |name: String, tar: &mut tar::Builder<Vec<u8>>| {
        let mut header = owned(header(about.epoch, 0o755, 0, tar::EntryType::Directory))?;
        tar.append_data(&mut header, name, std::io::empty())
    };
    dir("./".to_owned(), &mut tar)?;
    for place in payload.directories() {
        dir(format!("{}/", inside(&place)), &mut tar)?;
    }
    for (place, file) in &payload.files {
        let mode = if file.executable { 0o755 } else { 0o644 };
        let size = file.content.len() as u64;
        let mut header = owned(header(about.epoch, mode, size, tar::EntryType::Regular))?;
        tar.append_data(&mut header, inside(place), file.content.as_slice())?;
    }
    tar.into_inner()
}

fn control_tar(about: &About, payload: &Payload) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let scripts = &about.scripts;
    let files = [
        ("control", control(about, payload), 0o644),
        ("md5sums", md5sums(payload), 0o644),
        ("postinst", scripts.deb_postinst.clone(), 0o755),
        ("postrm", scripts.deb_postrm.clone(), 0o755),
        ("prerm", scripts.deb_prerm.clone(), 0o755),
    ];
    for (name, text, mode) in files.iter().filter(|(_, text, _)| !text.is_empty()) {
        let size = text.len() as u64;
        let mut header = owned(header(about.epoch, *mode, size, tar::EntryType::Regular))?;
        tar.append_data(&mut header, format!("./{name}"), text.as_bytes())?;
    }
    tar.into_inner()
}

fn control(about: &About, payload: &Payload) -> String {
    let mut text = format!(
        "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: {}\nInstalled-Size: {}\n",
        about.name,
        about.version,
        about.architecture,
        about.maintainer,
        payload.size().div_ceil(1024)
    );
    if !about.depends.deb.is_empty() {
        text.push_str(&format!("Depends: {}\n", about.depends.deb.join(", ")));
    }
    for (name, value) in &about.fields {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push_str(&format!(
        "Section: kernel\nPriority: optional\nDescription: {}\n",
        about.summary
    ));
    for line in about.description.lines() {
        let line = if line.is_empty() { "." } else { line };
        text.push_str(&format!(" {line}\n"));
    }
    text
}

fn md5sums(payload: &Payload) -> String {
    let line = |place: &Path, bytes: &[u8]| {
        let place = place.display().to_string();
        format!(
            "{}  {}\n",
            super::hex(&Md5::digest(bytes)),
            place.trim_start_matches('/')
        )
    };
    payload
        .files
        .iter()
        .map(|(place, file)| line(place, &file.content))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_payload_gives_the_same_bytes_and_dpkg_reads_them() {
        let mut payload = Payload::default();
        payload.put_program("/usr/src/x-1/run", "#!/bin/sh\n");
        payload.put(
            format!("/usr/src/x-1/{}/long.c", "d".repeat(120)),
            "int x;\n",
        );
        let about = About {
            name: "x-dkms".into(),
            version: "1".into(),
            architecture: "all".into(),
            maintainer: "A B <a@b.c>".into(),
            summary: "x".into(),
            epoch: 1_700_000_000,
            ..About::default()
        };
        let bytes = deb(&about, &payload).unwrap();
        assert_eq!(bytes, deb(&about, &payload).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.deb");
        std::fs::write(&file, &bytes).unwrap();
        let said = std::process::Command::new("dpkg-deb")
            .arg("--contents")
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{said:?}");
        assert!(
            text.contains("-rwxr-xr-x root/root") && text.contains("long.c"),
            "{text}"
        );
    }
}
