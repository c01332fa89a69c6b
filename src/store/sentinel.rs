//! Asks the Sentinels who the master is: all of them at once, each within a deadline of its own.
//!
//! The answer with the highest configuration epoch counts, as soon as a majority has answered: a Sentinel that was cut
//! off together with an old master still believes in it, under a lower epoch. Whether the server takes itself for the
//! master is for whoever connects to find out.

use std::collections::HashMap;
use std::time::Duration;

use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo};
use tokio::task::JoinSet;

use super::LinkError;
use super::endpoint::client;
use crate::config::{Login, RedisTls, Sentinels};

/// A Sentinel answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who the master is, by one Sentinel's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) host: String,
    pub(super) port: u16,
    /// Grows with every failover.
    pub(super) config_epoch: u64,
}

#[derive(Debug)]
pub(super) struct Resolver {
    /// The address of each Sentinel, and how it is reached.
    sentinels: Vec<(String, redis::Client)>,
    settings: Sentinels,
    tls: RedisTls,
    patience: Duration,
}

impl Resolver {
    /// # Errors
    /// When the certificates cannot be used.
    pub(super) fn new(settings: &Sentinels, tls: &RedisTls, timeout: Duration) -> redis::RedisResult<Self> {
        let reach = |(host, port): &(String, u16)| {
            let info = info(host, *port, settings.tls, &settings.sentinel_login, 0)?;
            Ok((address(host, *port), client(info, tls)?))
        };
        let sentinels = settings.servers.iter().map(reach).collect::<redis::RedisResult<_>>()?;
        Ok(Self { sentinels, settings: settings.clone(), tls: tls.clone(), patience: PATIENCE.min(timeout / 2) })
    }

    pub(super) fn database(&self) -> i64 {
        self.settings.database
    }

    /// Asks all, and believes the majority's latest word; without a majority, whoever answers.
    ///
    /// # Errors
    /// [`LinkError::NoMaster`] with what each Sentinel said.
    pub(super) async fn resolve(&self) -> Result<Master, LinkError> {
        let mut asking = JoinSet::new();
        for (address, client) in self.sentinels.clone() {
            let (name, patience) = (self.settings.master.clone(), self.patience);
            asking.spawn(async move {
                let asked = tokio::time::timeout(patience, ask(&client, &name)).await;
                let answer = asked.unwrap_or_else(|_| Err(format!("no answer within {patience:?}")));
                answer.map_err(|reason| format!("{address}: {reason}"))
            });
        }
        let (mut answers, mut reasons) = (Vec::new(), Vec::new());
        while let Some(Ok(answer)) = asking.join_next().await {
            match answer {
                Ok(master) => answers.push(master),
                Err(reason) => reasons.push(reason),
            }
            if answers.len() > self.sentinels.len() / 2 {
                break;
            }
        }
        let latest = answers.into_iter().max_by_key(|master| master.config_epoch);
        latest.ok_or_else(|| LinkError::NoMaster { name: self.settings.master.clone(), reasons: reasons.join("; ") })
    }

    /// How the master is reached.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub(super) fn client(&self, master: &Master) -> redis::RedisResult<redis::Client> {
        let Sentinels { tls, login, database, .. } = &self.settings;
        client(info(&master.host, master.port, *tls, login, *database)?, &self.tls)
    }

    /// As the operator wrote it, without the password.
    pub(super) fn shown(&self) -> String {
        let scheme = if self.settings.tls { "rediss" } else { "redis" };
        let servers: Vec<&str> = self.sentinels.iter().map(|(address, _)| address.as_str()).collect();
        let Sentinels { master, database, login, .. } = &self.settings;
        let user = super::endpoint::shown_user(login.username.as_deref(), login.password.is_some());
        format!("{scheme}+sentinel://{user}{}/{master}/{database}", servers.join(","))
    }
}

pub(super) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn ask(sentinel: &redis::Client, name: &str) -> Result<Master, String> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connecting = sentinel.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connecting.await.map_err(|error| error.to_string())?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("MASTER").arg(name);
    let answer: HashMap<String, String> =
        question.query_async(&mut connection).await.map_err(|error| error.to_string())?;
    read(&answer).ok_or_else(|| "its answer names no address".to_owned())
}

fn read(answer: &HashMap<String, String>) -> Option<Master> {
    let config_epoch = answer.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    let host = answer.get("ip").filter(|host| !host.is_empty())?.clone();
    Some(Master { host, port: answer.get("port")?.parse().ok()?, config_epoch })
}

fn info(host: &str, port: u16, tls: bool, login: &Login, database: i64) -> redis::RedisResult<ConnectionInfo> {
    let host = host.to_owned();
    let addr = match tls {
        false => ConnectionAddr::Tcp(host, port),
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    };
    let mut settings = RedisConnectionInfo::default().set_db(database);
    if let Some(username) = &login.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &login.password {
        settings = settings.set_password(password.expose());
    }
    Ok(addr.into_connection_info()?.set_redis_settings(settings))
}
