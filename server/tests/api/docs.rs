//! The interactive page: whole, from this server only, under a policy of its own.

use reqwest::Method;

use crate::harness::Server;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_loads_nothing_from_anywhere_else() {
    let server = Server::start().await;
    let browser = [("accept", "text/html,application/xhtml+xml")];
    let page = server.call(Method::GET, "/api/docs/", &browser, None).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    let mut seen = 0;
    for address in page.text.split(['"', '\'']).filter(|text| text.starts_with('/')) {
        let accept = if address.ends_with(".css") { "text/css,*/*;q=0.1" } else { "*/*" };
        let part = server.call(Method::GET, address, &[("accept", accept)], None).await;
        assert_eq!(part.status, 200, "{address}");
        assert!(!part.header("content-type").is_empty());
        for strange in ["http://", "https://", "innerHTML", "eval("] {
            // The document itself names the licence and the like; only what runs is looked at.
            assert!(address.ends_with(".json") || !part.text.contains(strange), "{address}");
        }
        seen += 1;
    }
    assert_eq!(seen, 3, "{}", page.text);
    assert!(!page.text.contains("http"), "the page names another host");
}
