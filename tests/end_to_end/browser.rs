//! The HTML report in a real browser: Chromium without a window, driven through chromedriver.
//!
//! What the page must show is computed here from the JSON inside the file, so that the page's own
//! sorting, searching and filtering are judged by something else. With `DUPFIND_SCREENSHOTS` set to
//! a directory, pictures of the page are left there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use url::Url;

use super::support::report_for_browser_tests;

const PAGE_SIZE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(20);
const SORTED: &str = "return [...document.querySelectorAll('th[aria-sort]')]
    .map(heading => [heading.dataset.key, heading.ariaSort])";
const OPEN_PATHS: &str = "return [...document.querySelectorAll('.details:not([hidden]) .path')]
    .map(path => path.textContent)";
const FOCUSED: &str = "return [document.activeElement.id, document.activeElement.value]";
const GROUND: &str = "return getComputedStyle(document.body).backgroundColor";
const WIDTH: &str = "return document.scrollingElement.scrollWidth";
const STICKING_OUT: &str = "return [...document.querySelectorAll('.page, .page *')]
    .filter(node => !node.closest('.visually-hidden') && node.getBoundingClientRect().right > 390.5)
    .map(node => `${node.tagName}.${node.className}`)";
const HOSTILE: &str = r#"<img src=x onerror=document.title=1>&"quote'.jpg"#;

#[tokio::test]
async fn hostile_names_are_only_text() {
    in_browser(|page| async move {
        let title = page.js("return document.querySelector('title').textContent").await;
        page.search("onerror=document").await;
        page.shows_groups(|group| contains(group, "onerror=document")).await;
        assert!(page.paths().await[0].ends_with(HOSTILE), "the name is shown as it is");
        page.press("#expand").await;
        assert_eq!(page.js("return document.images.length").await, 0);
        assert_eq!(page.js("return document.title").await, title, "nothing in a name ran");

        page.search(r"\u{202e}").await;
        page.shows_groups(|group| contains(group, r"\u{202e}")).await;
        let text = page.js("return document.getElementById('rows').textContent").await;
        assert!(!text.as_str().unwrap().contains('\u{202e}'), "the override stays visible text");
    })
    .await;
}

#[tokio::test]
async fn every_column_sorts_both_ways() {
    in_browser(|page| async move {
        // The page starts sorted by the last of these. Names start from A, numbers from the top.
        for key in ["size", "count", "type", "path", "reclaimable"] {
            let names = key == "type" || key == "path";
            for ascending in [names, !names] {
                page.press(&format!("th[data-key={key}] button")).await;
                let mut groups: Vec<&Value> = page.groups.iter().collect();
                groups.sort_by(|a, b| {
                    let order = match key {
                        "path" => first_path(a).cmp(first_path(b)),
                        "type" => a[key].as_str().cmp(&b[key].as_str()),
                        _ => a[key].as_u64().cmp(&b[key].as_u64()),
                    };
                    if ascending { order } else { order.reverse() }
                });
                groups.truncate(PAGE_SIZE);
                let expected: Vec<&str> = groups.into_iter().map(first_path).collect();
                let direction = if ascending { "ascending" } else { "descending" };
                assert_eq!(page.paths().await, expected, "by {key}, {direction}");
                assert_eq!(page.js(SORTED).await, json!([[key, direction]]));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn search_filters_and_pages_narrow_the_table() {
    in_browser(|page| async move {
        let all = page.groups.len();
        assert!(all > 2 * PAGE_SIZE, "the report under test has more than two pages");
        assert_eq!(page.count().await, all);
        page.press("[data-go=next]").await;
        let expected: Vec<&str> =
            page.groups.iter().map(first_path).skip(PAGE_SIZE).take(PAGE_SIZE).collect();
        assert_eq!(page.paths().await, expected, "the second page");
        page.press("[data-go=last]").await;
        assert_eq!(page.paths().await.last().unwrap(), first_path(page.groups.last().unwrap()));
        let position = format!("Page {0} of {0}", all.div_ceil(PAGE_SIZE));
        assert_eq!(page.find("#position").await.text().await.unwrap(), position);
        let next = page.find("[data-go=next]").await;
        assert_eq!(next.attr("aria-disabled").await.unwrap().unwrap(), "true");

        page.search("QUOTE'").await;
        page.shows_groups(|group| contains(group, "quote'")).await;
        page.search("no path has this in it").await;
        page.shows_groups(|_| false).await;
        page.press("#clear").await;
        page.shows_groups(|_| true).await;

        for kind in ["jpg", "txt"] {
            page.find("#type").await.select_by_value(&format!("={kind}")).await.unwrap();
            page.shows_groups(|group| group["type"] == kind).await;
        }
        page.find("#type").await.select_by_value("").await.unwrap();
        for least in [102_400, 1_048_576] {
            page.find("#size").await.select_by_value(&least.to_string()).await.unwrap();
            page.shows_groups(|group| group["size"].as_u64().unwrap() >= least).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_keyboard_opens_a_group_and_its_paths_can_be_copied() {
    in_browser(|page| async move {
        page.find("body").await.send_keys("/").await.unwrap();
        assert_eq!(page.js(FOCUSED).await, json!(["search", ""]), "focused, and nothing typed");

        let linked = page.groups.iter().find(|group| links(group).next().is_some()).unwrap();
        page.search(first_path(linked)).await;
        page.shows_groups(|group| contains(group, first_path(linked))).await;
        let toggle = page.find(".toggle").await;
        for (key, expanded) in [(Key::Enter, "true"), (Key::Space, "false"), (Key::Enter, "true")] {
            toggle.send_keys(&char::from(key).to_string()).await.unwrap();
            assert_eq!(toggle.attr("aria-expanded").await.unwrap().unwrap(), expanded);
        }
        let id = toggle.attr("aria-controls").await.unwrap().unwrap();
        let files = page.find(&format!("#{id}")).await;
        assert!(files.is_displayed().await.unwrap());
        let expected: Vec<&str> = paths(linked).collect();
        assert_eq!(page.js(OPEN_PATHS).await, json!(expected));
        let text = files.prop("textContent").await.unwrap().unwrap();
        for part in links(linked).chain([linked["hash"].as_str().unwrap()]) {
            assert!(text.contains(part), "{part} is shown");
        }

        page.search("onerror=document").await;
        page.shows_groups(|group| contains(group, "onerror=document")).await;
        page.press("#expand").await;
        let mut groups = page.groups.iter();
        let file = &groups.find(|group| first_path(group).ends_with(HOSTILE)).unwrap()["files"][0];
        let expected = file.get("copy").unwrap_or(&file["path"]).as_str().unwrap();
        let copied = Locator::XPath("//*[@id='announcer'][starts-with(., 'Copied /')]");
        for _ in ["with the clipboard API", "without it"] {
            page.press(".file .button").await;
            page.client.wait().for_element(copied).await.unwrap();
            let control = char::from(Key::Control);
            page.search(&format!("{control}v{control}")).await;
            let pasted = page.find("#search").await.prop("value").await.unwrap().unwrap();
            assert_eq!(pasted, expected);
            page.js("Object.defineProperty(navigator, 'clipboard', { value: undefined })").await;
            page.js("document.getElementById('announcer').textContent = ''").await;
            page.search("onerror=document").await;
            page.shows_groups(|group| contains(group, "onerror=document")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_history_is_a_page_of_its_own_with_charts_that_can_be_followed() {
    in_browser(|page| async move {
        let shown = "return ['duplicates', 'history'].filter(id => !document.getElementById(id).hidden)";
        assert_eq!(page.js(shown).await, json!(["duplicates"]));
        page.press(".views [href='#history']").await;
        page.becomes(shown, &json!(["history"])).await;
        let current = "return document.querySelector('.views [aria-current]').textContent";
        assert_eq!(page.js(current).await, "History");

        let data = page.js("return JSON.parse(document.getElementById('history-data').textContent)").await;
        let points = data["at"].as_array().unwrap().len();
        let last = points - 1;
        assert!(points >= 4, "the report under test has a history");
        assert_eq!((&data["x"][0], &data["x"][last]), (&json!(0), &json!(100)));
        let charts = "return [...document.querySelectorAll('.development')].map(chart => [
            chart.querySelector('h3').textContent, chart.querySelector('.reading strong').textContent,
            chart.querySelector('.line').getTotalLength() > 0])";
        let values = &data["values"];
        let expected = json!([
            ["Reclaimable space", values[0][last], true],
            ["Files", values[1][last], true],
            ["Redundant copies", values[2][last], true],
            ["Groups of identical files", values[3][last], true],
        ]);
        assert_eq!(page.js(charts).await, expected);
        assert_eq!(values[3][last], page.groups.len().to_string(), "it ends with what is there now");
        let marked = "const box = document.querySelectorAll('.plot')[1].getBoundingClientRect();
            const dot = document.querySelectorAll('.dot')[1].getBoundingClientRect();
            return [100 * (dot.x + dot.width / 2 - box.x) / box.width,
                    100 * (box.bottom - dot.y - dot.height / 2) / box.height]";
        let is_at = |mark: Value, point: usize| {
            let near = |at: &Value, wanted: &Value| (at.as_f64().unwrap() - wanted.as_f64().unwrap()).abs() < 1.5;
            assert!(near(&mark[0], &data["x"][point]) && near(&mark[1], &data["y"][1][point]), "{mark} {point}");
        };
        is_at(page.js(marked).await, last);

        let reading = "return document.querySelectorAll('.reading strong')[1].textContent";
        for point in [1, 0, 2] {
            // Between this count and the next.
            let places = [&data["x"][point], &data["x"][point + 1]].map(|place| place.as_f64().unwrap());
            let place = (places[0] + places[1]) / 200.0;
            let follow = format!(
                "const plot = document.querySelectorAll('.plot')[1], box = plot.getBoundingClientRect();
                plot.dispatchEvent(new PointerEvent('pointermove', {{ clientX: box.x + box.width * {place} }}))"
            );
            page.js(&follow).await;
            assert_eq!(page.js(reading).await, values[1][point], "the count before the pointer");
            is_at(page.js(marked).await, point);
        }
        page.js("document.querySelectorAll('.plot')[1].dispatchEvent(new PointerEvent('pointerleave'))").await;
        assert_eq!(page.js(reading).await, values[1][last]);

        page.js("document.querySelectorAll('.plot')[1].focus()").await;
        let plot = page.find("[data-chart='1'] .plot").await;
        for (key, point) in [(Key::Home, 0), (Key::Right, 1), (Key::Left, 0), (Key::Left, 0), (Key::End, last)] {
            plot.send_keys(&char::from(key).to_string()).await.unwrap();
            assert_eq!(page.js(reading).await, values[1][point], "{key:?}");
            let told = page.js("return document.getElementById('history-announcer').textContent").await;
            assert!(told.as_str().unwrap().ends_with(values[1][point].as_str().unwrap()), "{told}");
        }

        let rows = "return [...document.querySelectorAll('.runs tbody tr')].map(row => row.children[3].textContent)";
        assert_eq!(page.js(rows).await, json!(vec!["completed"; 5]), "every run there was");
        let rows = "return document.querySelectorAll('.values tbody tr').length";
        assert_eq!(page.js(rows).await, points);

        for (name, width, phone) in [("desktop", 1280, false), ("phone", 390, true)] {
            let size = json!({ "width": width, "height": 1500, "deviceScaleFactor": 1, "mobile": phone });
            page.cdp("Emulation.setDeviceMetricsOverride", size).await;
            for theme in ["light", "dark"] {
                let media = json!([{ "name": "prefers-color-scheme", "value": theme }]);
                page.cdp("Emulation.setEmulatedMedia", json!({ "features": media })).await;
                page.screenshot(&format!("history-{name}-{theme}.png")).await;
            }
        }
        page.press(".values summary").await;
        assert_eq!(page.js(WIDTH).await, 390, "nothing to scroll sideways");

        page.client.back().await.unwrap();
        page.becomes(shown, &json!(["duplicates"])).await;
        assert_eq!(page.js(current).await, "Duplicates");
    })
    .await;
}

#[tokio::test]
async fn it_is_readable_in_both_themes_and_on_a_phone() {
    in_browser(|page| async move {
        let mut grounds = Vec::new();
        for (name, width, phone) in [("desktop", 1280, false), ("phone", 390, true)] {
            let scale = 1 + u8::from(phone);
            let size = json!({
                "width": width, "height": 1600, "deviceScaleFactor": scale, "mobile": phone,
            });
            page.cdp("Emulation.setDeviceMetricsOverride", size).await;
            for theme in ["light", "dark"] {
                let media = json!([{ "name": "prefers-color-scheme", "value": theme }]);
                page.cdp("Emulation.setEmulatedMedia", json!({ "features": media })).await;
                page.screenshot(&format!("{name}-{theme}.png")).await;
                grounds.push(page.js(GROUND).await);
            }
        }
        assert_ne!(grounds[0], grounds[1], "the page follows the system");

        page.press("#expand").await;
        page.screenshot("phone-expanded-dark.png").await;
        assert_eq!(page.js(WIDTH).await, 390, "nothing to scroll sideways");
        assert_eq!(page.js(STICKING_OUT).await, json!([]), "nothing sticks out on a phone");

        page.press("#theme").await;
        assert_eq!(page.js(GROUND).await, grounds[0], "the button switches to light");
        // The browser stores what a page remembers in its own time: a page loaded at once may be too early.
        for attempt in 1.. {
            page.client.refresh().await.unwrap();
            if page.js(GROUND).await == grounds[0] {
                break;
            }
            assert!(attempt < 20, "the theme is remembered");
            page.press("#theme").await;
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        page.press("#theme").await;
        assert_eq!(page.js(GROUND).await, grounds[1]);
    })
    .await;
}

fn first_path(group: &Value) -> &str {
    group["files"][0]["path"].as_str().unwrap()
}

fn paths(group: &Value) -> impl Iterator<Item = &str> {
    group["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap())
}

fn links(group: &Value) -> impl Iterator<Item = &str> {
    let files = group["files"].as_array().unwrap().iter();
    files.filter_map(|file| file["links"].as_array()).flatten().map(|link| link.as_str().unwrap())
}

fn contains(group: &Value, text: &str) -> bool {
    let text = text.to_lowercase();
    paths(group).chain(links(group)).any(|path| path.to_lowercase().contains(&text))
}

/// The report, open in a browser, and the groups its file contains.
#[derive(Clone)]
struct Page {
    client: Client,
    groups: Vec<Value>,
}

impl Page {
    async fn find(&self, css: &str) -> Element {
        let found = self.client.find(Locator::Css(css)).await;
        found.unwrap_or_else(|error| panic!("no {css}: {error}"))
    }

    /// Clicks without scrolling there, which a sticky heading could get in the way of.
    async fn press(&self, css: &str) {
        self.js(&format!("document.querySelector({css:?}).click()")).await;
    }

    async fn js(&self, script: &str) -> Value {
        let result = self.client.execute(script, Vec::new()).await;
        result.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until a script answers this.
    async fn becomes(&self, script: &str, wanted: &Value) {
        let start = Instant::now();
        while self.js(script).await != *wanted {
            assert!(start.elapsed() < PATIENCE, "{script}: {wanted}, got {}", self.js(script).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn search(&self, text: &str) {
        let field = self.find("#search").await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    async fn count(&self) -> usize {
        let text = self.find("#count").await.text().await.unwrap();
        let number = text.split_once("of ").and_then(|(_, rest)| rest.split_once(" group"));
        number.map_or(0, |(number, _)| number.replace(',', "").parse().unwrap())
    }

    /// The first path of each listed group.
    async fn paths(&self) -> Vec<String> {
        let rows = "return [...document.querySelectorAll('#rows .group')].map(row =>
            row.querySelector('.folder').textContent + row.querySelector('.name').textContent)";
        serde_json::from_value(self.js(rows).await).unwrap()
    }

    /// Waits, as the search does, until the table lists the expected groups and counts them all.
    async fn shows_groups(&self, wanted: impl Fn(&Value) -> bool) {
        let wanted = self.groups.iter().filter(|group| wanted(group)).map(first_path);
        let wanted: Vec<&str> = wanted.collect();
        let first = &wanted[..wanted.len().min(PAGE_SIZE)];
        let start = Instant::now();
        while self.count().await != wanted.len() || self.paths().await != first {
            assert!(start.elapsed() < PATIENCE, "expected {first:?}, got {:?}", self.paths().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn cdp(&self, command: &str, parameters: Value) {
        self.vendor("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await;
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        self.vendor("se/log", json!({ "type": kind })).await.as_array().unwrap().clone()
    }

    async fn vendor(&self, path: &'static str, body: Value) -> Value {
        let answer = self.client.issue_cmd(Vendor { path, body }).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn screenshot(&self, name: &str) {
        if let Some(directory) = std::env::var_os("DUPFIND_SCREENSHOTS") {
            std::fs::create_dir_all(&directory).unwrap();
            let picture = self.client.screenshot().await.unwrap();
            std::fs::write(Path::new(&directory).join(name), picture).unwrap();
        }
    }

    /// Nothing reached the console, no script failed, and nothing but the file was requested.
    async fn was_quiet(&self) {
        assert_eq!(self.log("browser").await, Vec::<Value>::new());
        let mut requested = Vec::new();
        for entry in self.log("performance").await {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            if event["message"]["method"] == "Network.requestWillBeSent" {
                requested.push(event["message"]["params"]["request"]["url"].clone());
            }
        }
        requested.retain(|url| !url.as_str().unwrap().starts_with("data:"));
        let address = self.js("return location.href.split('#')[0]").await;
        assert!(!requested.is_empty(), "the log does list requests");
        assert!(requested.iter().all(|url| *url == address), "only the page itself: {requested:?}");
        self.js("console.error('seen')").await;
        assert_eq!(self.log("browser").await.len(), 1, "the log does list errors");
    }
}

/// A command that chromedriver adds to the standard ones.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

/// Opens the report in a browser of its own, runs `test`, and ends the browser however that went.
async fn in_browser<F, T>(test: F)
where
    F: FnOnce(Page) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let (directory, report) = report_for_browser_tests();
    let html = std::fs::read_to_string(&report).unwrap();
    let (_, data) = html.split_once(r#"id="data">"#).expect("the report has its data");
    let groups = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
    let driver = Driver::start();
    let profile = format!("--user-data-dir={}", directory.path().join("profile").display());
    let Value::Object(capabilities) = json!({
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        "goog:chromeOptions": {
            "binary": program(&["chromium", "chromium-browser", "google-chrome"]),
            // Without the sandbox, which many containers refuse it; the page is our own.
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--window-size=1280,1000", profile,
            ],
        },
    }) else {
        unreachable!("an object literal")
    };
    let client = ClientBuilder::new(HttpConnector::new())
        .capabilities(capabilities)
        .connect(&format!("http://127.0.0.1:{}", driver.port))
        .await
        .expect("a browser session");
    let page = Page { client: client.clone(), groups };
    let address = Url::from_file_path(&report).unwrap();
    let steps = test(page.clone());
    // A task, so that a failed assertion still closes the session: the browser outlives its driver.
    let outcome = tokio::spawn(async move {
        // The new tab's page makes requests of its own: it is left, and what it logged forgotten.
        page.client.goto("about:blank").await.unwrap();
        page.log("performance").await;
        page.client.goto(address.as_str()).await.expect("the report opens");
        steps.await;
        page.was_quiet().await;
    })
    .await;
    let closed = client.close().await;
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
    closed.expect("the browser ends");
}

/// A running chromedriver, ended with the value.
struct Driver {
    process: Child,
    port: u16,
}

impl Driver {
    fn start() -> Self {
        let mut process = Command::new(program(&["chromedriver"]))
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver starts");
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, ports) = mpsc::channel();
        // A thread, as reading has no timeout; it reads to the end so that the pipe never fills.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, port)) = line.rsplit_once("started successfully on port ") {
                    let _ = sender.send(port.trim_end_matches('.').parse());
                }
            }
        });
        let mut driver = Self { process, port: 0 };
        let port = ports.recv_timeout(PATIENCE).expect("chromedriver says where it listens");
        driver.port = port.expect("a port is a number");
        driver
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Finds a program in `PATH`. Without a browser the test fails: to pass would prove nothing.
fn program(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|directory| names.iter().map(move |name| directory.join(name)))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("browser tests need one of {names:?} in PATH: install Chromium"))
}
