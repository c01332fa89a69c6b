//! Where the jobs do their work: a server on the loopback interface that the nodes' `http` handler calls, one call an
//! attempt. The call lasts as long as the work; its effect is made when it ends, in the ledger, before it is answered.
//! A node that dies under it drops the connection, and the attempt with it.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ledger::{Ending, Ledger, Life, Ticket};
use super::load::{Load, Number};

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Until a listener that is out of file descriptors tries again.
const PAUSE: Duration = Duration::from_millis(20);

impl Endpoint {
    pub(super) async fn start(ledger: Arc<Ledger>, load: Load) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, stop, tasks) = (listener.local_addr()?, CancellationToken::new(), TaskTracker::new());
        tasks.spawn(accept(listener, ledger, load, tasks.clone(), stop.clone()));
        Ok(Self { address, stop, tasks })
    }

    pub(super) async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, ledger: Arc<Ledger>, load: Load, tasks: TaskTracker, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tasks.spawn(serve(stream, Arc::clone(&ledger), load, stop.clone()))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    }
}

async fn serve(stream: TcpStream, ledger: Arc<Ledger>, load: Load, stop: CancellationToken) {
    // A node waits for each answer before it settles: none may linger in the kernel.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let ledger = Arc::clone(&ledger);
        async move { Ok::<_, Infallible>(attempt(&ledger, load, request.uri().path()).await) }
    });
    // When the other side hangs up, hyper drops the call that runs.
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        // A connection that broke is what this is all about.
        _ = serving => {}
    }
}

async fn attempt(ledger: &Ledger, load: Load, path: &str) -> Response<Full<Bytes>> {
    let begun = parse(path).and_then(|(life, job)| Some((job, ledger.begin(job, life)?)));
    let Some((job, ticket)) = begun else { return answer(StatusCode::NOT_FOUND, String::new()) };
    let open = Open { ledger, ticket };
    let work = load.of(job);
    tokio::time::sleep(work.takes).await;
    if ledger.failures(job) < work.failures {
        open.end(Ending::Failed);
        answer(StatusCode::INTERNAL_SERVER_ERROR, String::new())
    } else {
        open.end(Ending::Done);
        answer(StatusCode::OK, serde_json::json!({ "ticket": ticket.0 }).to_string())
    }
}

/// An attempt that runs. Dropped without a word, it was cut off.
struct Open<'l> {
    ledger: &'l Ledger,
    ticket: Ticket,
}

impl Open<'_> {
    fn end(self, ending: Ending) {
        self.ledger.end(self.ticket, ending);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.ledger.end(self.ticket, Ending::Cut);
    }
}

/// `/LIFE/JOB`.
fn parse(path: &str) -> Option<(Life, Number)> {
    let (life, job) = path.strip_prefix('/')?.split_once('/')?;
    Some((Life(life.parse().ok()?), job.parse().ok()?))
}

fn answer(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn load() -> Load {
        Load { seed: 1, work: Duration::from_millis(200), lease: Duration::from_secs(3) }
    }

    async fn call(address: SocketAddr, life: Life, job: Number) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("POST /{}/{job} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", life.0);
        stream.write_all(request.as_bytes()).await.expect("it reads");
        stream
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..2000 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("waited ten seconds in vain");
    }

    #[tokio::test]
    async fn an_attempt_is_done_when_it_is_answered_and_cut_when_its_caller_goes() {
        let ledger = Arc::new(Ledger::default());
        let endpoint = Endpoint::start(Arc::clone(&ledger), load()).await.expect("a port is free");
        let life = ledger.live();
        let first = ledger.reserve(100);
        let job = (first..first + 100).find(|&n| load().of(n).failures == 0 && load().of(n).takes < load().lease);
        let job = job.expect("most jobs are like that");

        let gone = call(endpoint.address, life, job).await;
        until(|| ledger.running(life) == [job]).await;
        drop(gone);
        until(|| ledger.running(life).is_empty()).await;
        let mut answered = call(endpoint.address, life, job).await;
        let mut head = [0; 15];
        answered.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        let books = ledger.close();
        let endings: Vec<_> = books.attempts.iter().map(|attempt| attempt.ended.map(|(_, how)| how)).collect();
        assert_eq!(endings, [Some(Ending::Cut), Some(Ending::Done)]);
        endpoint.end().await;
    }
}
