use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn fetcher(permit: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Fetcher {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Fetcher {
        tls: Arc::new(tls),
        permit: Arc::new(permit),
        max_body: 64,
        redirects: Redirects::SameHost,
        user_agent: "test",
    }
}

/// A server that gives these answers, one per connection, and the requests it saw in the end.
async fn server(answers: Vec<String>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut seen = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            seen.push(String::from_utf8(request).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        seen
    });
    (address, task)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

async fn get(fetcher: &Fetcher, url: String) -> Result<Bytes, FetchError> {
    fetcher.get(&url, Duration::from_secs(5)).await
}

#[tokio::test]
async fn a_document_comes_over_a_redirect_on_the_same_host() {
    let redirect = answer("302 Found", "Location: next?a=1\r\n", "");
    let (address, seen) = server(vec![redirect, answer("200 OK", "", "{}")]).await;
    let body = get(&fetcher(|_| true), format!("http://{address}/dir/first")).await;
    assert_eq!(body.unwrap(), "{}");
    let seen = seen.await.unwrap();
    assert!(seen[0].starts_with("GET /dir/first HTTP/1.1\r\n") && seen[1].starts_with("GET /dir/next?a=1 "));
    assert!(seen[0].contains(&format!("host: {address}\r\n")), "{seen:?}");
}

#[tokio::test]
async fn what_is_no_document_is_refused() {
    let loops = answer("307 Temporary Redirect", "Location: /\r\n", "");
    for (answers, word) in [
        (vec![answer("404 Not Found", "", "")], "status"),
        (vec![answer("206 Partial Content", "", "{}")], "status"),
        (vec![answer("200 OK", "", &"x".repeat(65))], "body"),
        (
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned()],
            "body",
        ),
        (
            vec![answer("302 Found", "Location: http://other.test/\r\n", "")],
            "redirect",
        ),
        (
            vec![answer("302 Found", "Location: http://127.0.0.1:1/\r\n", "")],
            "redirect",
        ),
        (vec![answer("302 Found", "", "")], "redirect"),
        (vec![loops; MAX_REDIRECTS + 1], "redirect"),
        (vec!["SSH-2.0-OpenSSH\r\n".to_owned()], "http"),
    ] {
        let (address, seen) = server(answers.clone()).await;
        let refused = get(&fetcher(|_| true), format!("http://{address}/"))
            .await
            .unwrap_err();
        assert_eq!(refused.as_str(), word, "{answers:?}: {refused}");
        seen.abort();
    }
}

#[tokio::test]
async fn an_address_that_may_not_be_dialled_is_not() {
    let (address, seen) = server(vec![answer("200 OK", "", "{}")]).await;
    let refused = get(
        &fetcher(|ip| !ip.is_loopback()),
        format!("http://localhost:{}/", address.port()),
    )
    .await;
    assert_eq!(refused.unwrap_err().as_str(), "forbidden_address");
    assert!(!seen.is_finished(), "nobody came");
    seen.abort();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let refused = fetcher(|_| true)
        .get(&url, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "no answer within 50 ms");
}

#[test]
fn urls_are_checked_and_lead_nowhere_else() {
    let parse = str::parse::<WebUrl>;
    for (wrong, fault) in [
        ("", UrlFault::Malformed),
        ("ftp://a.test/", UrlFault::Scheme),
        ("/keys", UrlFault::Scheme),
        ("https://u:p@a.test/", UrlFault::Userinfo),
        ("https://a.test/#f", UrlFault::Fragment),
        ("https://a.test:0/", UrlFault::Malformed),
    ] {
        assert_eq!(parse(wrong), Err(fault), "{wrong}");
    }
    let anywhere = |location: &str| {
        let from = parse("https://a.test:8443/x/y?q").unwrap();
        let to = from.joined(location).and_then(WebUrl::with_tls);
        to.map(|url| url.to_string())
    };
    for (location, target) in [
        ("https://b.test/z", "https://b.test/z"),
        ("/z?r", "https://a.test:8443/z?r"),
        ("//b.test/z", "https://b.test/z"),
        ("z", "https://a.test:8443/x/z"),
    ] {
        assert_eq!(anywhere(location).as_deref(), Ok(target), "{location}");
    }
    assert_eq!(anywhere("http://a.test/"), Err(UrlFault::Downgrade));
    assert_eq!(anywhere("https://u@a.test/"), Err(UrlFault::Userinfo));
    let led = |from: &str, to: &str| parse(from).unwrap().redirected(to).map(|url| url.to_string());
    let moved = |to: &str| Ok(to.to_owned());
    assert_eq!(led("https://a.test/x/y", "z"), moved("https://a.test/x/z"));
    assert_eq!(
        led("https://a.test/", "https://A.test:443/z"),
        moved("https://A.test:443/z")
    );
    assert_eq!(
        led("http://a.test/", "https://a.test/z"),
        moved("https://a.test/z")
    );
    assert_eq!(led("https://a.test/", "http://a.test/"), Err(UrlFault::Downgrade));
    assert_eq!(led("https://a.test/", "//b.test/"), Err(UrlFault::OtherHost));
    assert_eq!(
        led("https://a.test/", "https://a.test:8443/"),
        Err(UrlFault::OtherHost)
    );
    assert_eq!(
        led("http://a.test:8080/", "https://a.test/"),
        Err(UrlFault::OtherHost)
    );
}
