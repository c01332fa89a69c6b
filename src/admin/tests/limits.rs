//! What one client may take, and how the port closes.

use super::*;

#[tokio::test]
async fn a_body_is_bounded_however_it_comes() {
    let port = Port::with(|config, _| config.admin.max_body = 1000).await;
    let large = format!("{{\"task\": \"{}\"}}", "x".repeat(1000));
    let problem = port.ask("POST", "/api/v1/jobs", &[], &large).await.problem(413);
    assert_eq!(problem["detail"], "a body may have 1000 bytes (admin.max_body in jobsd.toml)");
    // Announced only: nothing of it has to come.
    let announced = format!("POST /api/v1/jobs HTTP/1.1\r\nHost: {}\r\nContent-Length: 99999999999\r\n\r\n", port.addr);
    port.raw(&announced).await.problem(413);
    let chunk = format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024));
    let head = format!("POST /api/v1/jobs HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", port.addr);
    port.raw(&format!("{head}{chunk}")).await.problem(413);
    assert_eq!(port.ask("POST", "/api/v1/jobs", &[], &"x".repeat(1000)).await.status, 400, "1000 bytes are read");
}

#[tokio::test]
async fn headers_are_bounded() {
    let port = Port::open().await;
    let reply = port.ask("GET", "/", &[("X-Long", &"x".repeat(64 * 1024))], "").await;
    assert_eq!(reply.status, 431);
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let brief = Duration::from_millis(200);
    let port = Port::with(|_, limits| (limits.headers, limits.body) = (brief, brief)).await;
    // Headers that do not end, and a connection that says nothing.
    for sent in ["GET / HTTP/1.1\r\nHost: local", ""] {
        let mut stream = TcpStream::connect(port.addr).await.expect("the port is open");
        stream.write_all(sent.as_bytes()).await.expect("it is read");
        let answer = read_all(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    // Idle after an answer.
    let mut stream = TcpStream::connect(port.addr).await.expect("the port is open");
    let request = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", port.addr);
    stream.write_all(request.as_bytes()).await.expect("it is read");
    assert!(read_all(&mut stream).await.ends_with("alive\n"));
    // A body that does not come.
    let head = format!("POST /api/v1/jobs HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n\r\n{{", port.addr);
    port.raw(&head).await.problem(408);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let port = Port::with(|_, limits| limits.stall = Duration::from_millis(200)).await;
    let mut stream = TcpStream::connect(port.addr).await.expect("the port is open");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", port.addr);
    // Asks on and on and never reads: the answers fill every buffer, and then the port must not wait for ever.
    let asking = async { while stream.write_all(request.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, asking).await.expect("the port ends the connection");
    assert_eq!(port.get("/livez").await.status, 200);
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let port = Port::with(|_, limits| limits.connections = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(port.addr).await.expect("the port is open");
        let request = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", port.addr);
        stream.write_all(request.as_bytes()).await.expect("it is read");
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
        held.push(stream);
    }
    let mut third = TcpStream::connect(port.addr).await.expect("the kernel takes it");
    let reply = Reply::parse(&read_all(&mut third).await);
    assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
    assert_eq!(reply.header("content-length"), reply.body.len().to_string());
    drop(held);
    let freed = async {
        // A connection that is turned away may end before it is written to.
        loop {
            let mut stream = TcpStream::connect(port.addr).await.expect("the kernel takes it");
            let request = format!("GET /livez HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", port.addr);
            if stream.write_all(request.as_bytes()).await.is_ok() && read_all(&mut stream).await.contains("alive") {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, freed).await.expect("places become free again");
}

#[tokio::test]
async fn requests_may_be_pipelined() {
    let port = Port::open().await;
    let one = |path: &str, last: &str| format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{last}\r\n", port.addr);
    let mut stream = TcpStream::connect(port.addr).await.expect("the port is open");
    let all = [one("/livez", ""), one("/nowhere", ""), one("/readyz", "Connection: close\r\n")].concat();
    stream.write_all(all.as_bytes()).await.expect("it is read");
    let answers = read_all(&mut stream).await;
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "404", "200"]);
}

#[tokio::test]
async fn stopping_finishes_what_is_being_answered_and_nothing_else() {
    let port = Port::with(|_, limits| limits.body = DEADLINE).await;
    let mut idle = TcpStream::connect(port.addr).await.expect("the port is open");
    let request = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", port.addr);
    idle.write_all(request.as_bytes()).await.expect("it is read");
    idle.read_exact(&mut [0; 12]).await.expect("an answer");
    // Half a request is there when the stop comes, the other half follows.
    let body = r#"{"task": "cleanup_old_notifications"}"#;
    let mut busy = TcpStream::connect(port.addr).await.expect("the port is open");
    let head = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        port.addr,
        body.len()
    );
    busy.write_all(head.as_bytes()).await.expect("it is read");
    let mut going = [0; 25];
    busy.read_exact(&mut going).await.expect("the body is being waited for");
    assert_eq!(&going, b"HTTP/1.1 100 Continue\r\n\r\n");
    port.stop.cancel();
    assert!(read_all(&mut idle).await.ends_with("alive\n"), "the idle connection is closed");
    busy.write_all(body.as_bytes()).await.expect("it is read");
    assert_eq!(Reply::parse(&read_all(&mut busy).await).status, 201);
    tokio::time::timeout(DEADLINE, port.serving).await.expect("it ends").expect("without a panic");
    assert!(TcpStream::connect(port.addr).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_client_that_hangs_cannot_hold_the_stop_up() {
    let port = Port::with(|_, limits| limits.stop = Duration::from_millis(200)).await;
    let mut stream = TcpStream::connect(port.addr).await.expect("the port is open");
    let head = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        port.addr
    );
    stream.write_all(head.as_bytes()).await.expect("it is read");
    stream.read_exact(&mut [0; 25]).await.expect("the body is being waited for");
    port.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), port.serving).await.expect("it ends").expect("without a panic");
}

#[tokio::test]
async fn an_address_in_use_is_an_error_at_once() {
    let port = Port::open().await;
    let parts = AdminParts {
        config: Arc::new(ArcSwap::from_pointee(config())),
        broker: Arc::clone(&port.broker),
        metrics: Arc::default(),
        control: port.control.clone(),
        version: "0.1.0",
    };
    let error = Admin::bind(port.addr, parts).await.expect_err("it is taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
