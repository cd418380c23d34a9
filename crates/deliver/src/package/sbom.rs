//! The list of a package's contents, as SPDX 2.3 in JSON.

use super::{Package, hex, iso8601};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// The document; the same package gives the same text.
pub fn spdx(package: &Package, home: &str) -> String {
    let about = &package.about;
    let files: Vec<Value> = package
        .payload
        .files
        .iter()
        .enumerate()
        .map(|(i, (place, file))| {
            json!({
                "SPDXID": format!("SPDXRef-File-{i}"),
                "fileName": format!(".{}", place.display()),
                "checksums": [
                    { "algorithm": "SHA1", "checksumValue": hex(&Sha1::digest(&file.content)) },
                    { "algorithm": "SHA256", "checksumValue": hex(&Sha256::digest(&file.content)) },
                ],
                "licenseConcluded": "NOASSERTION",
                "copyrightText": "NOASSERTION",
            })
        })
        .collect();
    let contains: Vec<Value> = (0..files.len())
        .map(|i| {
            json!({ "spdxElementId": "SPDXRef-Package", "relationshipType": "CONTAINS",
                    "relatedSpdxElement": format!("SPDXRef-File-{i}") })
        })
        .chain([
            json!({ "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                        "relatedSpdxElement": "SPDXRef-Package" }),
        ])
        .collect();
    let namespace = Sha256::digest(format!("{}{}", about.name, verification(package)));
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}-{}", about.name, about.version),
        "documentNamespace": format!("https://spdx.org/spdxdocs/{}-{}-{}", about.name, about.version, hex(&namespace)),
        "creationInfo": {
            "created": iso8601(about.epoch),
            "creators": [format!("Tool: kspan-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": [{
            "SPDXID": "SPDXRef-Package",
            "name": about.name,
            "versionInfo": about.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": true,
            "packageVerificationCode": { "packageVerificationCodeValue": verification(package) },
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": package.licence,
            "copyrightText": "NOASSERTION",
            "comment": format!("Derived by kspan from a driver written for {home}; what was changed for each kernel, why, and from where stands in provenance/*.json."),
        }],
        "files": files,
        "relationships": contains,
    });
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// SPDX's own digest over a package: the SHA1 of its files' SHA1s, sorted.
fn verification(package: &Package) -> String {
    let mut sums: Vec<String> = package
        .payload
        .files
        .values()
        .map(|f| hex(&Sha1::digest(&f.content)))
        .collect();
    sums.sort();
    hex(&Sha1::digest(sums.concat()))
}
