//! `report.html` in a headless Chromium: plots are drawn, a hover is answered, and no row of the data becomes markup.

mod browser;
#[path = "../cli/fixture.rs"]
#[expect(dead_code, reason = "the tests of the command use more of it")]
mod fixture;

use std::fs;

use browser::Browser;
use fixture::{Fixture, succeeds};
use tamis::records::selection::{MAP_SIDE, MapRecord, MapRows};

const DESKTOP: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (390, 844);

/// Rows that would do harm if they were markup; no other row speaks of zebras.
const EVIL: [&str; 3] = [
    "<script>document.title='owned'</script> zebra stripes",
    "</script><img src=x onerror=\"document.title='owned'\"> zebra stripes",
    "\u{2028}<!--<script> zebra ${document.title='owned'} stripes",
];

/// The browser, or a word on standard error that there is none.
fn browser() -> Option<Browser> {
    let browser = Browser::start();
    if browser.is_none() {
        eprintln!("SKIPPED: chromedriver is not installed (Debian: chromium-driver), so no page was looked at");
    }
    browser
}

/// A finished run on rows among which there are many harmful ones, one of whose labels is harmful too.
fn run() -> Fixture {
    let fixture = Fixture::new();
    let mut train = fixture.read("train.jsonl");
    for i in 0..60 {
        let row = serde_json::json!({ "text": format!("{} {i}", EVIL[i % 3]), "label": "<b onclick=x>&amp;" });
        train += &format!("{row}\n");
    }
    fixture.write("train.jsonl", &train);
    let validation = fixture.read("validation.jsonl");
    let more = train.lines().rev().take(30).map(|row| row.replace("zebra", "zebras"));
    fixture.write("validation.jsonl", &(validation + &more.collect::<Vec<_>>().join("\n")));
    succeeds(fixture.select("run", &["--agent", "dqn"]));
    fixture
}

/// Where the cluster of the harmful rows stands in the window, and its words.
const HARMFUL: &str = "
    const data = JSON.parse(document.getElementById('data').textContent);
    const i = data.map.clusters.findIndex(({ samples }) => samples.every(({ text }) => text.includes('zebra')));
    const { x, y } = data.map.clusters[i];
    const map = document.getElementById('map');
    map.scrollIntoView({ block: 'center' });
    const box = map.getBoundingClientRect();
    const scale = (map.clientWidth - 24) / 4095;
    return [Math.round(box.x + 13 + scale * x), Math.round(box.y + 13 + scale * (4095 - y)), data.words[i].join(' ')];";

/// The ids of plots on which nothing is drawn: whose pixels are all alike.
const BLANK: &str = "
    return [...document.querySelectorAll('.plot')].filter(plot => {
        const canvas = plot.querySelector('canvas');
        const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
        return pixels.every(pixel => pixel === pixels[0]);
    }).map(plot => plot.id);";

#[test]
fn the_page_draws_answers_and_shows_harmful_rows_as_text() {
    let Some(browser) = browser() else { return };
    let fixture = run();
    let page = fixture.path("run/report.html");
    for (window, dark) in [(DESKTOP, false), (DESKTOP, true), (PHONE, false), (PHONE, true)] {
        browser.look(window, dark);
        browser.open(&page);
        let plots = browser.run("return [...document.querySelectorAll('.plot')].map(plot => plot.id).join()");
        assert_eq!(plots, "map,best,returns,loss");
        assert_eq!(
            browser.run(BLANK),
            serde_json::json!([]),
            "plots on which nothing is drawn"
        );
        let ground = browser.run("return getComputedStyle(document.body).backgroundColor");
        assert_eq!(ground == "rgb(21, 23, 26)", dark, "{ground}");
        let wider = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wider, 0, "nothing is wider than the window");

        let at = browser.run(HARMFUL);
        let (x, y) = (at[0].as_i64().expect("a place"), at[1].as_i64().expect("a place"));
        if window == PHONE {
            browser.tap(x, y);
        } else {
            browser.point(x, y);
        }
        let tip = browser
            .wait("const tip = document.querySelector('.tip'); return tip && tip.offsetHeight > 0 && tip.innerText;");
        let tip = tip.as_str().expect("a text");
        let words = at[2].as_str().expect("words");
        assert!(tip.starts_with(words) && tip.contains("rows chosen"), "{words}: {tip}");
        assert!(EVIL.iter().any(|row| tip.contains(row)), "{tip}");
        assert!(tip.contains("<b onclick=x>&amp;"), "{tip}");
        let text = browser.run("return document.getElementById('labels').innerText");
        assert!(
            text.as_str().is_some_and(|text| text.contains("<b onclick=x>&amp;")),
            "{text}"
        );

        let title = browser.run("return document.title");
        assert_eq!(title, "54 of 540 rows chosen · tamis");
        assert_eq!(browser.run("return document.images.length"), 0);
        assert_eq!(
            browser.console(),
            Vec::<serde_json::Value>::new(),
            "the console is empty"
        );
    }
}

#[test]
fn a_theme_or_a_window_that_changes_is_drawn_anew() {
    let Some(browser) = browser() else { return };
    let fixture = run();
    browser.look(DESKTOP, false);
    browser.open(&fixture.path("run/report.html"));
    let picture = || browser.run("return document.querySelector('#map canvas').toDataURL()");
    let light = picture();
    browser.look(DESKTOP, true);
    browser.wait("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
    assert_ne!(light, picture());
    browser.look(PHONE, true);
    browser.wait("return document.querySelector('#map canvas').clientWidth < 390");
    assert_eq!(browser.run(BLANK), serde_json::json!([]));
    assert_eq!(browser.console(), Vec::<serde_json::Value>::new());
}

#[test]
fn sixty_thousand_points_do_not_freeze_it() {
    let Some(browser) = browser() else { return };
    let fixture = run();
    let mut map: MapRecord = serde_json::from_str(&fixture.read("run/map.json")).expect("a map");
    let places: Vec<u64> = (0..60_000).map(|i| i * 2_654_435_761 % (1 << 32)).collect();
    map.rows = MapRows {
        x: places
            .iter()
            .map(|place| (place % u64::from(MAP_SIDE)) as u16)
            .collect(),
        y: places
            .iter()
            .map(|place| (place / 4096 % u64::from(MAP_SIDE)) as u16)
            .collect(),
        chosen: (0..60_000).step_by(20).collect(),
    };
    fixture.write("run/map.json", &serde_json::to_string(&map).expect("JSON"));
    let mut command = fixture.tamis();
    command.args(["report", "run"]);
    assert_eq!(succeeds(command).trim(), "run/report.html");
    let page = fixture.path("run/report.html");
    browser.look(DESKTOP, false);
    let drawn = browser.open(&page);
    eprintln!(
        "60,000 points: a page of {} KiB, drawn {drawn} ms after its navigation began",
        fs::metadata(&page).expect("a page").len() / 1024
    );
    assert_eq!(browser.run(BLANK), serde_json::json!([]));
    // Some hundred milliseconds on an idle machine; tests share theirs.
    assert!(drawn < 20_000, "{drawn} ms");
    assert_eq!(browser.console(), Vec::<serde_json::Value>::new());
}
