//! What is fuzzed: every function that reads text or bytes from outside. A target returns whatever happens, or panics.

use std::io::{Cursor, Read, sink};
use std::path::Path;

/// Feeds an input to a parser.
pub type Parse = fn(&[u8]);
/// A name (also that of its corpus) and the parser.
pub type Target = (&'static str, Parse);

/// All of them.
pub const ALL: &[Target] = &[
    ("symvers", symvers),
    ("btf", btf),
    ("deb", deb),
    ("control", control),
    ("lock", lock),
    ("manifest", manifest),
    ("kbuild", kbuild),
    ("diagnostics", diagnostics),
    ("cmdfile", cmdfile),
    ("lexer", lexer),
    ("evolutions", evolutions),
    ("spec", spec),
    ("module", kspan_deliver::parsers::module),
    ("image", kspan_deliver::parsers::image),
    ("configuration", kspan_deliver::parsers::configuration),
    ("state", kspan_deliver::parsers::state),
    ("preprocessed", kspan_deliver::parsers::preprocessed),
];

/// Decompressing may grow; no input needs more than this to show a fault.
const MOST_BYTES: u64 = 1 << 20;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn symvers(bytes: &[u8]) {
    let _ = kspan_facts::symvers::parse(&text(bytes));
}

fn btf(bytes: &[u8]) {
    let Ok(btf) = kspan_facts::btf::parse(bytes) else {
        return;
    };
    for name in ["point", "shape", "colour", "draw", "RED"] {
        let _ = (
            btf.constant(name),
            btf.record_size(name),
            btf.members(name),
            btf.function(name),
        );
    }
}

fn deb(bytes: &[u8]) {
    if let Ok(stream) = kspan_kernel::deb::data_member(Cursor::new(bytes.to_vec())) {
        let _ = std::io::copy(&mut stream.take(MOST_BYTES), &mut sink());
    }
}

fn control(bytes: &[u8]) {
    let Ok(stanzas) = kspan_kernel::control::stanzas(bytes, |_| true) else {
        return;
    };
    for stanza in &stanzas {
        let _ = (stanza.package(), stanza.source());
        let _ = kspan_kernel::control::listed(stanza, "main/binary-amd64/Packages.xz");
        let _ = kspan_kernel::control::depends(stanza.get("depends"));
        let _ = kspan_kernel::control::date(stanza.get("date"));
        let _ = kspan_kernel::debversion::compare(stanza.get("version"), stanza.get("package"));
    }
}

fn lock(bytes: &[u8]) {
    let _ = kspan_kernel::Lock::parse(&text(bytes));
}

fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = kspan_port::driver::Manifest::parse(&text(bytes)) {
        let _ = manifest.render();
    }
}

fn kbuild(bytes: &[u8]) {
    let kbuild = kspan_port::driver::Kbuild::parse(bytes);
    for module in kbuild.modules() {
        let _ = (
            kbuild.symbol_of(&module),
            kbuild.part_symbol(&module, "main.o"),
        );
    }
}

fn diagnostics(bytes: &[u8]) {
    for diagnostic in kspan_port::diag::parse(&text(bytes)) {
        let _ = (
            diagnostic.quoted().len(),
            diagnostic.unexported_symbol().is_some(),
        );
    }
}

fn cmdfile(bytes: &[u8]) {
    let file = kspan_kernel::cmdfile::parse(&text(bytes));
    let _ =
        kspan_kernel::cmdfile::compile_args(&file.words, Path::new("/k"), file.source.as_deref());
}

fn lexer(bytes: &[u8]) {
    let count = kspan_port::lex::tokens(bytes).count();
    for at in [0, count, bytes.len() / 2, bytes.len()] {
        let _ = (
            kspan_port::lex::expression_end(bytes, at),
            kspan_port::lex::closing(bytes, at),
        );
    }
    let text = text(bytes);
    let _ = (
        kspan_port::lex::words(&text),
        kspan_port::lex::members(&text),
        kspan_port::lex::rename(&text, "dev", "device"),
    );
}

fn evolutions(bytes: &[u8]) {
    let _ = kspan_evolve::Library::from_texts([("fuzz.toml".to_owned(), text(bytes))]);
}

fn spec(bytes: &[u8]) {
    let _ = kspan_kernel::FetchSpec::parse(&text(bytes));
}
