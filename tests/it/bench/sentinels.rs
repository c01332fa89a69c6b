//! Three Sentinels that watch one master under the name `mymaster`.

use std::collections::HashMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use super::{Child, Redis, free_port, until};

#[derive(Debug)]
pub(crate) struct Sentinels {
    ports: [u16; 3],
    _processes: Vec<Child>,
    _dir: TempDir,
}

impl Sentinels {
    /// Starts them and waits until each knows the others and `replicas` of the master. A master that is silent for a
    /// second is down for them.
    pub(crate) fn watch(master: &Redis, replicas: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ports = [free_port(), free_port(), free_port()];
        let start = |port: &u16| {
            let folder = dir.path().join(port.to_string());
            fs::create_dir(&folder).expect("a new folder");
            let settings = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n",
                folder.display(),
                master.port()
            );
            let file = folder.join("sentinel.conf");
            fs::write(&file, settings).expect("it can be written");
            let log = fs::File::create(folder.join("log")).expect("a log file");
            let mut command = Child::command("redis-server");
            command
                .arg(file)
                .arg("--sentinel")
                .stdin(Stdio::null())
                .stderr(log.try_clone().expect("a file"))
                .stdout(log);
            Child::spawn(&mut command)
        };
        let processes = ports.iter().map(start).collect();
        let sentinels = Self { ports, _processes: processes, _dir: dir };
        until("the Sentinels to know each other and the replicas", || {
            let knows = |port: u16| {
                let master = Self::master_as_told_by(port)?;
                let number = |name: &str| master.get(name).and_then(|text| text.parse::<usize>().ok());
                (number("num-other-sentinels") == Some(2) && number("num-slaves") == Some(replicas)).then_some(())
            };
            ports.iter().all(|port| knows(*port).is_some()).then_some(())
        });
        sentinels
    }

    /// As jobsd is told of them.
    pub(crate) fn url(&self) -> String {
        let servers = self.ports.map(|port| format!("127.0.0.1:{port}")).join(",");
        format!("redis+sentinel://{servers}/mymaster/0")
    }

    /// The port of the master, as producers find it.
    pub(crate) fn master_port(&self) -> Option<u16> {
        let master = self.ports.iter().find_map(|port| Self::master_as_told_by(*port))?;
        master.get("port")?.parse().ok()
    }

    /// Says something to each of them.
    #[track_caller]
    pub(crate) fn tell(&self, command: &[&str]) {
        for port in self.ports {
            let mut connection = Self::connect(port).expect("it answers");
            redis::cmd("SENTINEL").arg(command).exec(&mut connection).expect("it obeys");
        }
    }

    fn connect(port: u16) -> Option<redis::Connection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a valid URL");
        client.get_connection_with_timeout(Duration::from_secs(2)).ok()
    }

    fn master_as_told_by(port: u16) -> Option<HashMap<String, String>> {
        redis::cmd("SENTINEL").arg("MASTER").arg("mymaster").query(&mut Self::connect(port)?).ok()
    }
}
