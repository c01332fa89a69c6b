//! What a pool does with what comes back in an order that only chance brings about.

use arc_swap::ArcSwap;
use serde_json::json;

use super::*;
use crate::broker::{Altered, Broker, Change, scripts};
use crate::config::{ProbeOp, ProbeStep, Step};
use crate::handler::Handlers;
use crate::job::{Job, NodeId, State};
use crate::store::Store;
use crate::testing::fixture;
use crate::testing::redis::RedisServer;

struct World {
    _redis: RedisServer,
    _dir: tempfile::TempDir,
    _swept: mpsc::Sender<Swept>,
    broker: Arc<Broker>,
    pool: Pool,
}

/// A pool of a queue whose only task sleeps.
fn world() -> World {
    fixture::tls_provider();
    let (redis, dir) = (RedisServer::start(), tempfile::tempdir().expect("a temp dir"));
    let mut config = fixture::config(dir.path());
    let task = fixture::task(vec![Step::Probe(ProbeStep { op: ProbeOp::Sleep })]);
    config.tasks.insert(task.name.clone(), Arc::new(task));
    let handlers = Arc::new(Handlers::new(&config).expect("the handlers are built"));
    let store = Store::new(&redis.url(), "jobsd", Duration::from_secs(5), scripts()).expect("a valid URL");
    let node = NodeId::parse("a").expect("a valid name");
    let broker = Arc::new(Broker::new(Arc::new(store), node, Duration::from_secs(15)).0);
    let live = ArcSwap::from_pointee(Live { config: Arc::new(config), handlers });
    let shared = Arc::new(Shared { broker: Arc::clone(&broker), live, metrics: Arc::default() });
    let queue = watch::Sender::new(Arc::new(fixture::queue())).subscribe();
    let (sender, swept) = mpsc::channel(1);
    let pool = Pool::new(
        shared,
        Arc::new(slots::Slots::new()).seat(),
        Arc::new(Pressure::new()),
        queue,
        swept,
        Stop::default(),
    );
    World { _redis: redis, _dir: dir, _swept: sender, broker, pool }
}

async fn state(broker: &Broker, job: &Job) -> State {
    let standing = broker.store.job(&job.id, std::slice::from_ref(&job.queue)).await.expect("Redis answers");
    standing.expect("it is kept").state()
}

/// Redis has given the job to us and somebody asks for its end at once: that may be heard before the job has come.
#[tokio::test]
async fn a_job_is_cancelled_whose_claim_comes_after_the_request() {
    let World { broker, pool, .. } = &mut world();
    let job = fixture::job(json!({"seconds": 3600}));
    broker.enqueue(std::slice::from_ref(&job)).await.expect("Redis answers");
    pool.depart();
    while state(broker, &job).await != State::Active {
        tokio::task::yield_now().await;
    }
    let request = Request { at: clock::now(), by: "ann".into(), reason: None };
    let asked = broker.alter(&job.queue, std::slice::from_ref(&job.id), &Change::Cancel(request), clock::now()).await;
    assert_eq!(asked.expect("Redis answers"), [Altered::Requested]);
    let requests = broker.cancels(&job.queue, &pool.heard).await;
    pool.receive(Returned::Cancels(requests));
    let came = pool.trips.next().await;
    pool.receive(came);
    assert_eq!(pool.work.slots(), 1);
    let cancelled = async {
        while state(broker, &job).await != State::Cancelled {
            pool.gather();
            pool.depart();
            pool.wait().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), cancelled).await.expect("it is ended");
}
