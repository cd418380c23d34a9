//! What the commands on drivers share: which drivers, which kernels.

use kspan_kernel::Cache;
use kspan_port::Engine;
use kspan_port::driver::Driver;
use kspan_port::view::View;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Drivers and kernels of a command.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// Driver directories (with a kspan.toml).
    #[arg(required = true, value_name = "DRIVER")]
    pub drivers: Vec<PathBuf>,
    /// Kernels: ids, releases or aliases such as 6.1, separated by commas [default: the newest of each fetched series].
    #[arg(long, value_name = "K,K", value_delimiter = ',')]
    pub on: Vec<String>,
    /// How many cells at once [default: one for each core].
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<usize>,
}

impl Selection {
    /// Opens the drivers.
    ///
    /// # Errors
    /// When one has no manifest, or a malformed one.
    pub fn drivers(&self) -> anyhow::Result<Vec<Arc<Driver>>> {
        self.drivers
            .iter()
            .map(|dir| Ok(Arc::new(load(dir)?)))
            .collect()
    }

    /// Opens the kernels.
    ///
    /// # Errors
    /// When one is not there, or none is.
    pub fn targets(&self, engine: &Engine) -> anyhow::Result<Vec<Arc<View>>> {
        targets(&self.on, engine)
    }

    /// How many workers.
    pub fn jobs(&self) -> usize {
        self.jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// Opens the kernels that are named, or the newest of each fetched series.
///
/// # Errors
/// When one is not there, or none is.
pub fn targets(on: &[String], engine: &Engine) -> anyhow::Result<Vec<Arc<View>>> {
    let names = if on.is_empty() {
        newest(&engine.cache)?
    } else {
        on.to_vec()
    };
    if names.is_empty() {
        anyhow::bail!(kspan_kernel::Error::Input(
            "no kernel is in the cache; fetch some first, for example `kspan kernel fetch debian/bookworm`".into()
        ));
    }
    names.iter().map(|name| Ok(engine.view(name)?)).collect()
}

/// Opens a driver's directory.
///
/// # Errors
/// When it is not there, has no manifest, or a malformed one.
pub fn load(dir: &Path) -> kspan_kernel::Result<Driver> {
    if !dir.is_dir() {
        let why = format!(
            "{}: no such directory; name a driver's directory, one with a kspan.toml",
            dir.display()
        );
        return Err(kspan_kernel::Error::Input(why));
    }
    Driver::load(dir)
}

/// The newest kernel of each series in the cache, oldest series first.
fn newest(cache: &Cache) -> anyhow::Result<Vec<String>> {
    let series = |v: &str| v.split('.').take(2).collect::<Vec<_>>().join(".");
    let mut out: Vec<(String, String)> = Vec::new();
    for kernel in cache.kernels()? {
        let s = series(&kernel.version);
        out.retain(|(other, _)| *other != s);
        out.push((s, kernel.id));
    }
    Ok(out.into_iter().map(|(_, id)| id).collect())
}
