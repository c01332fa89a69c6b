//! Where Redis is, for all connections of a store: at one address, or where the Sentinels say.
//!
//! Owns the epoch. It grows when the Sentinels name another master and when a server turns out not to be one; every
//! connection of an older epoch is left for a new one at its next use. Opens no connection for commands itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ClientTlsConfig, ConnectionAddr, ConnectionInfo, TlsCertificates, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::sentinel::{Master, Resolver, address};
use super::{LinkError, StoreError};
use crate::config::{RedisTls, Secret, Sentinels};

/// How often the Sentinels are asked whether the master is another: an old one that was cut off from them may still
/// answer us, and takes jobs that the new one will never know.
const FOLLOW: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Endpoint {
    place: Place,
    epoch: AtomicU64,
    /// Whether it is spoken to in TLS, and we have no certificate of our own.
    anonymous: bool,
    /// Told when a server has refused something that the guardian should look into.
    pub(super) alarm: Notify,
}

#[derive(Debug)]
enum Place {
    Fixed(Box<redis::Client>),
    Sentinels(Box<Followed>),
}

#[derive(Debug)]
struct Followed {
    resolver: Resolver,
    known: Mutex<Option<Known>>,
}

/// The master that was found last.
#[derive(Debug, Clone)]
struct Known {
    master: Master,
    client: redis::Client,
}

/// How the server is reached, and the epoch in which that is true.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) client: redis::Client,
    pub(super) epoch: u64,
}

impl Endpoint {
    /// # Errors
    /// [`StoreError`] when the URL cannot be read or its certificates cannot be used.
    pub(crate) fn at_url(url: &Secret, tls: &RedisTls) -> Result<Self, StoreError> {
        let info = redis::IntoConnectionInfo::into_connection_info(url.expose()).map_err(StoreError::Url)?;
        let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let client = client(info, tls).map_err(StoreError::Url)?;
        Ok(Self::new(Place::Fixed(Box::new(client)), encrypted && tls.identity.is_none()))
    }

    /// # Errors
    /// [`StoreError`] when the certificates cannot be used.
    pub(crate) fn behind(sentinels: &Sentinels, tls: &RedisTls, timeout: Duration) -> Result<Self, StoreError> {
        let resolver = Resolver::new(sentinels, tls, timeout).map_err(StoreError::Url)?;
        let followed = Followed { resolver, known: Mutex::default() };
        Ok(Self::new(Place::Sentinels(Box::new(followed)), sentinels.tls && tls.identity.is_none()))
    }

    fn new(place: Place, anonymous: bool) -> Self {
        Self { place, epoch: AtomicU64::new(1), anonymous, alarm: Notify::new() }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// What was found in this epoch is not the master, or not any more. Told again, it changes nothing.
    pub(super) fn leave(&self, epoch: u64) {
        let _ = self.epoch.compare_exchange(epoch, epoch + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Where to connect to. The Sentinels are asked anew.
    ///
    /// # Errors
    /// [`LinkError::NoMaster`] when no Sentinel knows.
    pub(super) async fn find(&self) -> Result<Found, LinkError> {
        match &self.place {
            Place::Fixed(client) => Ok(Found { client: (**client).clone(), epoch: self.epoch() }),
            Place::Sentinels(followed) => {
                let master = followed.resolver.resolve().await?;
                self.settle_on(master, &followed.resolver, &mut followed.known())
            }
        }
    }

    /// Where the latest connection went to; found first when there was none.
    ///
    /// # Errors
    /// As [`Endpoint::find`].
    pub(super) async fn current(&self) -> Result<Found, LinkError> {
        if let Place::Sentinels(followed) = &self.place
            && let Some(known) = &*followed.known()
        {
            return Ok(Found { client: known.client.clone(), epoch: self.epoch() });
        }
        self.find().await
    }

    /// Asks a fresh connection whether it leads to a master, where the Sentinels' word is all that says so.
    ///
    /// # Errors
    /// [`LinkError::NotMaster`] when it does not.
    pub(super) async fn verify(&self, connection: &mut MultiplexedConnection) -> Result<(), LinkError> {
        let Place::Sentinels(followed) = &self.place else { return Ok(()) };
        let role: Vec<Value> = redis::cmd("ROLE").query_async(connection).await.map_err(|error| self.explain(error))?;
        let role = role.into_iter().next().and_then(|role| redis::from_redis_value::<String>(role).ok());
        match role.as_deref() {
            Some("master") => Ok(()),
            role => {
                let address = followed.known().as_ref().map(|known| shown_address(&known.master)).unwrap_or_default();
                Err(LinkError::NotMaster { address, role: role.unwrap_or("nothing that is known").to_owned() })
            }
        }
    }

    /// What it means that a new connection failed at its first words. A server that asks for a certificate of ours ends
    /// the connection then, and its reason is often lost with it.
    pub(super) fn explain(&self, error: redis::RedisError) -> LinkError {
        if self.anonymous && (error.is_connection_dropped() || error.is_io_error()) {
            return LinkError::Anonymous(error);
        }
        LinkError::Connect(error)
    }

    /// Follows the Sentinels until it is told to stop; returns at once where there are none.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        let Place::Sentinels(followed) = &self.place else { return };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(FOLLOW) => {}
            }
            match followed.resolver.resolve().await {
                Ok(master) => self.move_on(master, &followed.resolver, &mut followed.known()),
                // Whether anything works is the link's to tell.
                Err(error) => tracing::debug!("failed to {error}"),
            }
        }
    }

    /// Leaves the known master for a later one. An answer from before the last failover does not lead back.
    fn move_on(&self, master: Master, resolver: &Resolver, known: &mut Option<Known>) {
        if known.as_ref().is_none_or(|known| master.config_epoch >= known.master.config_epoch)
            && let Err(error) = self.settle_on(master, resolver, known)
        {
            tracing::debug!("failed to {error}");
        }
    }

    fn settle_on(&self, master: Master, resolver: &Resolver, known: &mut Option<Known>) -> Result<Found, LinkError> {
        let before = known.as_ref().map(|known| shown_address(&known.master));
        let now = shown_address(&master);
        if let Some(known) = known.as_mut().filter(|_| before.as_ref() == Some(&now)) {
            known.master = master;
            return Ok(Found { client: known.client.clone(), epoch: self.epoch() });
        }
        match before {
            Some(before) => tracing::warn!("the Sentinels name another master: {now} instead of {before}"),
            None => tracing::info!("the Sentinels name the master {now}"),
        }
        let client = resolver.client(&master).map_err(LinkError::Connect)?;
        *known = Some(Known { master, client: client.clone() });
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Found { client, epoch })
    }

    /// As the operator wrote it, the password masked.
    pub(crate) fn shown(&self) -> String {
        match &self.place {
            Place::Fixed(client) => shown_url(client.get_connection_info()),
            Place::Sentinels(followed) => followed.resolver.shown(),
        }
    }

    /// The number of the database in which the keys are.
    pub(crate) fn database(&self) -> i64 {
        match &self.place {
            Place::Fixed(client) => client.get_connection_info().redis_settings().db(),
            Place::Sentinels(followed) => followed.resolver.database(),
        }
    }

    /// The address of the master that the Sentinels have named.
    pub(crate) fn master(&self) -> Option<String> {
        match &self.place {
            Place::Fixed(_) => None,
            Place::Sentinels(followed) => followed.known().as_ref().map(|known| shown_address(&known.master)),
        }
    }
}

impl Followed {
    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown_address(master: &Master) -> String {
    address(&master.host, master.port)
}

fn shown_url(info: &ConnectionInfo) -> String {
    let settings = info.redis_settings();
    let user = shown_user(settings.username(), settings.password().is_some());
    let database = settings.db();
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => format!("redis://{user}{}/{database}", address(host, *port)),
        ConnectionAddr::TcpTls { host, port, .. } => format!("rediss://{user}{}/{database}", address(host, *port)),
        ConnectionAddr::Unix(path) => format!("redis+unix://{}", path.display()),
        _ => "redis://".to_owned(),
    }
}

pub(super) fn shown_user(username: Option<&str>, has_password: bool) -> String {
    match (username, has_password) {
        (None, false) => String::new(),
        (Some(user), false) => format!("{user}@"),
        (user, true) => format!("{}:***@", user.unwrap_or_default()),
    }
}

/// A client for the server, with our certificates where it is to be spoken to in TLS.
pub(super) fn client(info: ConnectionInfo, tls: &RedisTls) -> redis::RedisResult<redis::Client> {
    // The library would tell its name at every connection, for which a user needs one more permission.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    let info = info.set_redis_settings(settings);
    let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    if !encrypted || *tls == RedisTls::default() {
        return redis::Client::open(info);
    }
    let client_tls = tls.identity.as_ref().map(|identity| ClientTlsConfig {
        client_cert: identity.certificate.clone().into_bytes(),
        client_key: identity.key.expose().as_bytes().to_vec(),
    });
    let root_cert = tls.authority.as_ref().map(|authority| authority.clone().into_bytes());
    redis::Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Login;

    fn endpoint(login: Login) -> Endpoint {
        let sentinels = Sentinels {
            servers: vec![("a".into(), 26379), ("::1".into(), 1)],
            master: "mymaster".into(),
            database: 2,
            tls: false,
            login,
            sentinel_login: Login::default(),
        };
        Endpoint::behind(&sentinels, &RedisTls::default(), Duration::from_secs(5)).expect("an endpoint")
    }

    fn master(host: &str, config_epoch: u64) -> Master {
        Master { host: host.into(), port: 6379, config_epoch }
    }

    /// A Sentinel that was cut off with an old master still names it, with the epoch of then.
    #[test]
    fn a_word_from_before_the_last_failover_does_not_lead_back() {
        let endpoint = endpoint(Login::default());
        let Place::Sentinels(followed) = &endpoint.place else { panic!("it follows Sentinels") };
        let hear = |host: &str, config_epoch| {
            endpoint.move_on(master(host, config_epoch), &followed.resolver, &mut followed.known());
            (endpoint.master().expect("there is one"), endpoint.epoch())
        };
        assert_eq!(hear("old", 1), ("old:6379".into(), 2));
        assert_eq!(hear("old", 1), ("old:6379".into(), 2), "the same again is no news");
        assert_eq!(hear("new", 2), ("new:6379".into(), 3));
        assert_eq!(hear("old", 1), ("new:6379".into(), 3));
        assert_eq!(hear("third", 2), ("third:6379".into(), 4), "Sentinels that were set up anew count from the start");
    }

    #[test]
    fn a_server_is_left_once_however_many_find_out() {
        let endpoint = endpoint(Login::default());
        let epoch = endpoint.epoch();
        endpoint.leave(epoch);
        endpoint.leave(epoch);
        assert_eq!(endpoint.epoch(), epoch + 1);
    }

    #[test]
    fn no_url_is_shown_with_its_password() {
        let login = Login { username: Some("ann".into()), password: Some(Secret::new("hunter2")) };
        assert_eq!(endpoint(login).shown(), "redis+sentinel://ann:***@a:26379,[::1]:1/mymaster/2");
        let cases = [
            ("redis://ann:hunter2@h:1/3", "redis://ann:***@h:1/3"),
            ("redis://:hunter2@h", "redis://:***@h:6379/0"),
            ("rediss://h", "rediss://h:6379/0"),
            ("redis+unix:///run/redis.sock?user=ann&pass=hunter2", "redis+unix:///run/redis.sock"),
        ];
        for (url, shown) in cases {
            let endpoint = Endpoint::at_url(&Secret::new(url), &RedisTls::default()).expect("a URL");
            assert_eq!(endpoint.shown(), shown);
        }
    }
}
