//! The folder that takes everything the demo makes, and the shipped configuration turned towards it.
//!
//! Nothing of the environment is read, and every way out of the machine is closed, whatever the configuration says.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::clock;
use crate::config::{self, Config, Database, EmailProvider, MAIL_TEMPLATES, Problems, PushProvider, RedisUrl};

/// The configuration that this version ships.
const SHIPPED: &str = include_str!("../../jobsd.toml");
/// Socket paths are limited to 107 bytes by the kernel (unix(7)); this stands behind the folder.
const LONGEST: usize = 107 - "/redis/redis.sock".len();

/// Why there is no place for the demo.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error("create the folder {}: {source}; `--dir` can name another", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("use the folder {}: {reason}; `--dir` can name another", path.display())]
    Unfit { path: PathBuf, reason: String },
    #[error("use the folder {}: it holds files that no demo has made; name an empty or a new one", .0.display())]
    Foreign(PathBuf),
    #[error("read the shipped configuration:\n{0}")]
    Config(#[from] Problems),
    #[error("write the log {}: {reason}", path.display())]
    Log { path: PathBuf, reason: String },
}

/// The demo's folder.
pub(super) struct Place {
    /// Absolute, without links.
    pub(super) folder: PathBuf,
    /// Why it is not where it usually is.
    pub(super) note: Option<String>,
}

impl Place {
    /// The folder that the caller wants, or a fresh one below `./state/demo`. Where the path of that would be too long
    /// for a socket, a fresh one among the temporary files.
    pub(super) fn choose(wanted: Option<PathBuf>) -> Result<Self, PlaceError> {
        match wanted {
            Some(path) => Self::wanted(&path),
            None => Self::fresh(),
        }
    }

    fn wanted(path: &Path) -> Result<Self, PlaceError> {
        let create = |source| PlaceError::Create { path: path.to_owned(), source };
        let unfit = |reason| PlaceError::Unfit { path: path.to_owned(), reason };
        fit(&std::path::absolute(path).map_err(create)?).map_err(unfit)?;
        fs::create_dir_all(path).map_err(create)?;
        let folder = path.canonicalize().map_err(create)?;
        fit(&folder).map_err(unfit)?;
        let mut entries = fs::read_dir(&folder).map_err(create)?;
        let used_before = folder.join("node.lock").exists();
        if !used_before && entries.next().is_some() {
            return Err(PlaceError::Foreign(folder));
        }
        Ok(Self { folder, note: None })
    }

    fn fresh() -> Result<Self, PlaceError> {
        let usual = Path::new("./state/demo");
        let create = |source| PlaceError::Create { path: usual.to_owned(), source };
        fs::create_dir_all(usual).map_err(create)?;
        let parent = usual.canonicalize().map_err(create)?;
        let time = clock::now().to_utc().format("%Y%m%d-%H%M%S").to_string();
        match fit(&parent.join(&time)) {
            Ok(()) => Ok(Self { folder: numbered(&parent, &time)?, note: None }),
            Err(reason) => {
                let folder = numbered(&std::env::temp_dir(), &format!("jobsd-demo-{time}"))?;
                let note = format!("{} is not used: {reason}", parent.display());
                Ok(Self { folder, note: Some(note) })
            }
        }
    }

    /// The shipped configuration on this place alone.
    pub(super) fn config(&self) -> Result<Config, PlaceError> {
        let loaded = config::parse(SHIPPED, Path::new("jobsd.toml"), &|_| None, &MAIL_TEMPLATES)?;
        let mut config = loaded.config;
        let timeout = match config.database {
            Database::Sqlite { timeout, .. } | Database::Postgres { timeout, .. } => timeout,
        };
        config.admin.listen.set_ip(Ipv4Addr::LOCALHOST.into());
        config.admin.token = None;
        config.redis.url = RedisUrl::Embedded { port: None };
        config.node.state_dir = self.folder.clone();
        config.database = Database::Sqlite { path: self.database(), timeout };
        config.email.provider = EmailProvider::Outbox { folder: self.mails() };
        config.push.provider = PushProvider::Outbox { folder: self.pushes() };
        config.video.input_roots = vec![self.uploads()];
        config.video.output_root = self.videos();
        Ok(config)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.folder.join("app.sqlite")
    }

    pub(super) fn mails(&self) -> PathBuf {
        self.folder.join("outbox/email")
    }

    pub(super) fn pushes(&self) -> PathBuf {
        self.folder.join("outbox/push")
    }

    pub(super) fn videos(&self) -> PathBuf {
        self.folder.join("video")
    }

    /// Where the application would put what its users send.
    pub(super) fn uploads(&self) -> PathBuf {
        self.folder.join("uploads")
    }

    /// The daemon's log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("jobsd.log")
    }

    /// Sends the daemon's log to its file: the terminal is for the report.
    pub(super) fn log_to_file(&self, level: &str) -> Result<(), PlaceError> {
        let failed = |reason| PlaceError::Log { path: self.log(), reason };
        let filter =
            tracing_subscriber::EnvFilter::builder().parse(level).map_err(|error| failed(error.to_string()))?;
        let file =
            File::options().create(true).append(true).open(self.log()).map_err(|error| failed(error.to_string()))?;
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Mutex::new(file)).init();
        Ok(())
    }
}

/// Whether the private Redis and the video helper can work below this path.
fn fit(folder: &Path) -> Result<(), String> {
    let Some(text) = folder.to_str() else { return Err("its path is not UTF-8".into()) };
    if text.len() > LONGEST {
        return Err(format!("its path has {} bytes, and a socket's path allows {LONGEST} here", text.len()));
    }
    // The path stands in the URL of the Redis.
    match text.contains(['?', '#', '%']) {
        true => Err("its path holds a `?`, `#` or `%`".into()),
        false => Ok(()),
    }
}

/// A folder that was not there before, for its owner only.
fn numbered(parent: &Path, name: &str) -> Result<PathBuf, PlaceError> {
    let mut path = parent.join(name);
    for number in 2.. {
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                path = parent.join(format!("{name}-{number}"))
            }
            Err(source) => return Err(PlaceError::Create { path, source }),
        }
    }
    Ok(path)
}
