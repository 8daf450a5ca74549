//! A headless Chromium, driven through chromedriver by the W3C WebDriver protocol: JSON over HTTP.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

/// A browser with one window; it ends with this value.
pub(crate) struct Browser {
    driver: Child,
    /// What the driver says; it ends where nobody can hear it.
    _said: BufReader<ChildStdout>,
    /// The address of the session.
    session: String,
}

impl Browser {
    /// Starts one; none where chromedriver is not installed.
    pub(crate) fn start() -> Option<Self> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = BufReader::new(driver.stdout.take().expect("it was asked for"));
        let port = said
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("successfully on port ")
                    .map(|(_, port)| port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver says its port");
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--force-device-scale-factor=1"] },
        } } });
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self {
            driver,
            _said: said,
            session: base,
        };
        let id = browser.post("", &capabilities)["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        browser.session = format!("{}/{id}", browser.session);
        Some(browser)
    }

    /// Shows a window of this size, in the dark or the light theme.
    pub(crate) fn look(&self, (width, height): (u32, u32), dark: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let theme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    /// Opens a file and waits until its plots are drawn; returns after how many milliseconds they were.
    pub(crate) fn open(&self, page: &Path) -> u64 {
        self.post("/url", &json!({ "url": format!("file://{}", page.display()) }));
        let drawn = self.wait("return document.documentElement.dataset.drawn");
        drawn
            .as_str()
            .and_then(|drawn| drawn.parse().ok())
            .expect("milliseconds")
    }

    /// What a script returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What a script returns as soon as it returns anything.
    pub(crate) fn wait(&self, script: &str) -> Value {
        let wait = format!(
            "const done = arguments[0];
             const ask = () => {{ const said = (() => {{ {script} }})(); said ? done(said) : setTimeout(ask, 20); }};
             ask();"
        );
        self.post("/execute/async", &json!({ "script": wait, "args": [] }))
    }

    /// Moves the mouse to a place of the window.
    pub(crate) fn point(&self, x: i64, y: i64) {
        let moves = [(x - 2, y), (x, y)].map(|(x, y)| json!({ "type": "pointerMove", "x": x, "y": y, "duration": 20 }));
        self.act("mouse", &moves);
    }

    /// Taps on a place of the window.
    pub(crate) fn tap(&self, x: i64, y: i64) {
        let moves = [
            json!({ "type": "pointerMove", "x": x, "y": y, "duration": 0 }),
            json!({ "type": "pointerDown", "button": 0 }),
            json!({ "type": "pointerUp", "button": 0 }),
        ];
        self.act("touch", &moves);
    }

    /// What stands on the console since it was last asked.
    pub(crate) fn console(&self) -> Vec<Value> {
        let log = self.post("/se/log", &json!({ "type": "browser" }));
        log.as_array().cloned().expect("a list")
    }

    fn act(&self, pointer: &str, moves: &[Value]) {
        let pointer =
            json!({ "type": "pointer", "id": pointer, "parameters": { "pointerType": pointer }, "actions": moves });
        self.post("/actions", &json!({ "actions": [pointer] }));
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }));
    }

    /// The answer's value; whatever goes wrong ends the test.
    fn post(&self, path: &str, body: &Value) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent
            .post(format!("{}{path}", self.session))
            .header("content-type", "application/json")
            .send(body.to_string())
            .expect("chromedriver answers");
        let text = answer.body_mut().read_to_string().expect("a text");
        assert!(answer.status().is_success(), "{path}: {text}");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser when the session is deleted; if that fails, it is ended with the driver.
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
