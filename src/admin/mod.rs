//! stub
use std::{io, net::SocketAddr, sync::Arc};
use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use crate::{broker::Broker, config::Config, control::Control, metrics::Metrics};
#[derive(Debug)]
pub struct AdminParts { pub config: Arc<ArcSwap<Config>>, pub broker: Arc<Broker>, pub metrics: Arc<Metrics>, pub control: Control, pub version: &'static str }
#[derive(Debug)]
pub struct Admin(SocketAddr);
impl Admin {
    pub async fn bind(a: SocketAddr, _p: AdminParts) -> io::Result<Self> { Ok(Self(a)) }
    pub fn local_addr(&self) -> SocketAddr { self.0 }
    pub async fn serve(self, stop: CancellationToken) { stop.cancelled().await }
}
