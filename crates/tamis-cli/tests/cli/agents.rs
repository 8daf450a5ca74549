//! Every way to spend the budget, from the command line.

use serde_json::Value;

use crate::fixture::{Fixture, complains, exists, succeeds};

/// All but `exhaustive`, which needs a small problem.
const AGENTS: [&str; 8] = [
    "dqn",
    "dyna-dqn",
    "ppo",
    "climb-disc",
    "greedy",
    "local-search",
    "bandit",
    "random",
];

/// A selection of 6 chunks of 8 rows among so many clusters.
fn select(fixture: &Fixture, out: &str, agent: &str, clusters: &str, more: &[&str]) -> String {
    let flags = ["--agent", agent, "--clusters", clusters, "--max-evaluations", "150"];
    succeeds(fixture.select(out, &[&flags[..], more].concat()))
}

#[test]
fn every_agent_spends_what_it_may_and_has_one_answer() {
    let fixture = Fixture::new();
    for agent in AGENTS {
        select(&fixture, agent, agent, "10", &["--threads", "1"]);
        let record: Value = serde_json::from_str(&fixture.read(&format!("{agent}/selection.json"))).expect("JSON");
        let spent = record["evaluations"].as_u64().expect("a number");
        assert!(spent > 60 && spent <= 150, "{agent}: {spent}");
        assert!(
            record["scores"]["reward"]["chosen"]
                .as_f64()
                .is_some_and(f64::is_finite),
            "{agent}"
        );
        // Two threads, then the same folder again with all that it has paid for.
        let chosen = fixture.read(&format!("{agent}/selected.jsonl"));
        select(&fixture, &format!("{agent}-2"), agent, "10", &["--threads", "2"]);
        assert_eq!(
            chosen,
            fixture.read(&format!("{agent}-2/selected.jsonl")),
            "{agent}, 2 threads"
        );
        std::fs::remove_file(fixture.path(&format!("{agent}/selection.json"))).expect("removes");
        select(&fixture, agent, agent, "10", &["--threads", "1"]);
        assert_eq!(
            chosen,
            fixture.read(&format!("{agent}/selected.jsonl")),
            "{agent}, again"
        );
    }
}

#[test]
fn one_cluster_is_enough_for_every_agent() {
    let fixture = Fixture::new();
    for agent in AGENTS.into_iter().chain(["exhaustive"]) {
        select(&fixture, agent, agent, "1", &[]);
        assert!(exists(&fixture, &format!("{agent}/selected.jsonl")), "{agent}");
    }
}

#[test]
fn an_agent_learns_on_a_frozen_reward_model() {
    let fixture = Fixture::new();
    for agent in ["dqn", "ppo"] {
        select(&fixture, agent, agent, "10", &["--reward-model", "climb-disc"]);
        let record: Value = serde_json::from_str(&fixture.read(&format!("{agent}/selection.json"))).expect("JSON");
        let spent = record["evaluations"].as_u64().expect("a number");
        assert!(
            (75..=150).contains(&spent),
            "{agent}: half for the model, the rest to confirm: {spent}"
        );
    }
}

#[test]
fn agents_are_checked_where_the_optimum_is_known() {
    let fixture = Fixture::new();
    let mut command = fixture.tamis();
    command.args([
        "check",
        "agent",
        "--out",
        "check",
        "--problems",
        "2",
        "--seeds",
        "2",
        "--budget",
        "10%",
    ]);
    command.args(["--train", "train.jsonl", "--validation", "validation.jsonl"]);
    command.args(["--agents", "dqn,dyna-dqn,ppo,random"]);
    let told = succeeds(command);
    assert!(
        told.contains("share of the gain") && told.contains("dyna-dqn"),
        "{told}"
    );
    let record: Value = serde_json::from_str(&fixture.read("check/check_agent.json")).expect("JSON");
    assert_eq!(record["problems"].as_array().map(Vec::len), Some(2));
    for agent in record["agents"].as_array().expect("agents") {
        let gain = agent["gain"].as_f64().expect("a share");
        assert!((0.5..=1.0).contains(&gain), "{agent}");
        assert!(
            agent["of_enumeration"].as_f64().is_some_and(|share| share <= 0.25),
            "{agent}"
        );
    }
}

#[test]
fn settings_of_agents_that_mean_nothing_are_named() {
    let fixture = Fixture::new();
    for (setting, complaint) in [
        (
            "[ppo]\nclip_range = 0.0\n",
            "ppo.clip_range: expected a number above 0, found 0",
        ),
        (
            "[ppo]\nn_epochs = 0\n",
            "ppo.n_epochs: expected from 1 to 1000, found 0",
        ),
        (
            "[dyna_dqn]\nimagined = 0\n",
            "dyna_dqn.imagined: expected a number above 0, found 0",
        ),
        ("[climb_disc]\nshare = 2.0\n", "climb_disc.share: "),
    ] {
        fixture.write("tamis.toml", setting);
        let said = complains(&fixture, fixture.select("run", &["--config", "tamis.toml"]), 2);
        assert!(said.starts_with(&format!("error: {complaint}")), "{said}");
    }
}
