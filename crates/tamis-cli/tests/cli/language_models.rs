//! `tamis finetune` on tiny language models: conversations, labelled rows, what is written, and what is refused.

use std::process::Command;

use serde_json::{Value, json};

use crate::fixture::{Fixture, complains, exists, succeeds};

/// The folders of tiny decoders.
const DECODERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tamis-nn/tests/oracle/decoders");

fn finetune(fixture: &Fixture, family: &str, out: &str, more: &[&str]) -> Command {
    let mut command = fixture.on_files(&["finetune"]);
    let model = format!("{DECODERS}/{family}");
    command.args([
        "--model",
        &model,
        "--out",
        out,
        "--epochs",
        "2",
        "--learning-rate",
        "0.01",
    ]);
    command.args(more);
    command
}

/// Prompts with responses: 40 training, 12 validation and 12 test rows, some of them conversations with more to them.
fn chats() -> Fixture {
    let fixture = Fixture::new();
    for (name, rows) in [("train", 40), ("validation", 12), ("test", 12)] {
        let rows = (0..rows).map(|i| {
            let user = json!({"role": "user", "content": format!("{name} asks {i}")});
            let said = |text: &str| json!({"role": "assistant", "content": format!("{text} {}", i % 7)});
            let row = match i % 3 {
                0 => json!({"messages": [{"role": "system", "content": "Be brief."}, user, said("yes")]}),
                1 => json!({"messages": [user, said("no"), {"role": "user", "content": "Why?"}, said("so")]}),
                _ => json!({"messages": [user, said("well")]}),
            };
            format!("{row}\n")
        });
        fixture.write(&format!("{name}.jsonl"), &rows.collect::<String>());
    }
    fixture
}

fn metrics(fixture: &Fixture, out: &str) -> Value {
    serde_json::from_str(&fixture.read(&format!("{out}/metrics.json"))).expect("JSON")
}

#[test]
fn conversations_are_learned_and_adapters_written_as_peft_reads_them() {
    let fixture = chats();
    let said = succeeds(finetune(&fixture, "llama", "adapter", &["--load-best", "log-loss"]));
    for words in [
        "Trained: 40 rows, 2 epochs, 6 steps",
        "perplexity",
        "test, before",
        "adapters that peft loads",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let record = metrics(&fixture, "adapter");
    let loss = |split: &str| record[split]["loss"].as_f64().expect("a loss");
    assert!(loss("test") < loss("untrained"), "{record}");
    for file in ["adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(exists(&fixture, &format!("adapter/{file}")), "{file}");
    }
    let config: Value = serde_json::from_str(&fixture.read("adapter/adapter_config.json")).expect("JSON");
    assert_eq!((&config["peft_type"], &config["r"]), (&json!("LORA"), &json!(16)));
    // The same command again trains nothing anew; one thread more gives the same.
    assert_eq!(
        succeeds(finetune(&fixture, "llama", "adapter", &["--load-best", "log-loss"])),
        said
    );
    succeeds(finetune(
        &fixture,
        "llama",
        "again",
        &["--load-best", "log-loss", "--threads", "3"],
    ));
    assert_eq!(metrics(&fixture, "again")["test"], record["test"]);

    succeeds(finetune(
        &fixture,
        "mistral",
        "merged",
        &["--merge", "--dtype", "bfloat16"],
    ));
    assert!(exists(&fixture, "merged/model.safetensors") && !exists(&fixture, "merged/adapter_config.json"));
    let said = succeeds(finetune(&fixture, "qwen3", "full", &["--full", "--sample", "50%"]));
    assert!(
        said.contains("Trained: 20 rows") && said.contains("a model that transformers loads"),
        "{said}"
    );
    // What was written is a model to start from.
    let further = fixture.on_files(&["finetune", "--out", "further", "--epochs", "1", "--model", "full"]);
    succeeds(further);
}

#[test]
fn labelled_rows_become_prompts_and_are_scored_by_their_answers() {
    let fixture = Fixture::new();
    let sample = ["--sample", "32", "--max-length", "200"];
    let said = succeeds(finetune(&fixture, "qwen2", "labels", &sample));
    assert!(said.contains("accuracy") && said.contains("macro-F1"), "{said}");
    let record = metrics(&fixture, "labels");
    for score in ["accuracy", "macro_f1", "log_loss"] {
        assert!(
            record["test"][score].is_f64() && record["untrained"][score].is_f64(),
            "{record}"
        );
    }
    fixture.write("prompt.jinja", "{{ text }} ({{ labels | join('/') }})");
    succeeds(finetune(
        &fixture,
        "qwen2",
        "own",
        &[&sample[..], &["--template", "prompt.jinja"]].concat(),
    ));
    assert_ne!(metrics(&fixture, "own")["untrained"], record["untrained"]);

    // A prompt whose response is one of a few has an accuracy, too.
    for (name, rows) in [("train", 40), ("validation", 12), ("test", 12)] {
        let said = |i: usize| if i.is_multiple_of(2) { "good" } else { "bad" };
        let row = |i: usize| json!({"prompt": format!("{name} {i}"), "completion": said(i)});
        let rows = (0..rows).map(|i| format!("{}\n", row(i)));
        fixture.write(&format!("{name}.jsonl"), &rows.collect::<String>());
    }
    succeeds(finetune(&fixture, "qwen2", "few", &[]));
    let record = metrics(&fixture, "few");
    assert!(
        record["test"]["accuracy"].is_f64() && record["test"]["loss"].is_f64(),
        "{record}"
    );
}

#[test]
fn what_cannot_be_trained_says_why() {
    let fixture = chats();
    let complaint = |more: &[&str]| complains(&fixture, finetune(&fixture, "llama", "run", more), 2);
    insta::assert_snapshot!(complaint(&["--freeze-layers", "1"]), @r"
    error: --freeze-layers: expected an encoder, which alone has it, found a language model
    hint: leave it out
    ");
    insta::assert_snapshot!(complaint(&["--full", "--merge"]), @"error: --merge: expected adapters, so no `--full` beside it, found both");
    insta::assert_snapshot!(complaint(&["--lora-rank", "0"]), @"error: --lora-rank: expected a number above 0, found 0");
    let bert = crate::finetune::TINY;
    let mut encoder = fixture.on_files(&["finetune", "--out", "run", "--model", bert, "--full"]);
    encoder.args(["--epochs", "1"]);
    insta::assert_snapshot!(complains(&fixture, encoder, 2).replace(bert, "<bert>"), @"error: --model: expected a language model (Llama, Mistral, Qwen2 or Qwen3), which these settings are for, found the encoder `<bert>`");
    let encoder = fixture.on_files(&["finetune", "--out", "run", "--model", bert]);
    insta::assert_snapshot!(complains(&fixture, encoder, 2).replace(bert, "<bert>"), @r"
    error: fine-tuning on prompt/response rows is not supported: the encoders trained here give labels or choices scores, and write no text
    hint: give `--model` a decoder (Llama, Qwen2, Qwen3 or Mistral)
    ");
    let other = fixture.path("other");
    std::fs::create_dir(&other).expect("a folder");
    let config = json!({"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]});
    fixture.write("other/config.json", &config.to_string());
    let decoder = fixture.on_files(&["finetune", "--out", "run", "--model", "other"]);
    insta::assert_snapshot!(complains(&fixture, decoder, 2), @r#"
    error: other/config.json: expected model_type llama, mistral, qwen2 or qwen3, found "gemma2"
    hint: name a model of one of these kinds with `--model`
    "#);
    // A model of a billion layers: told before its weights are read.
    for file in ["tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(format!("{DECODERS}/llama/{file}"), other.join(file)).expect("copied");
    }
    let config = std::fs::read_to_string(format!("{DECODERS}/llama/config.json")).expect("reads");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    config["num_hidden_layers"] = json!(1_000_000_000);
    fixture.write("other/config.json", &config.to_string());
    let large = complains(
        &fixture,
        fixture.on_files(&["finetune", "--out", "run", "--model", "other"]),
        2,
    );
    assert!(
        large.contains("while it is loaded") && large.contains("hint: take a smaller model"),
        "{large}"
    );
}

#[test]
fn a_row_that_the_template_refuses_is_a_bad_row() {
    let fixture = chats();
    let model = format!("{DECODERS}/llama");
    std::fs::create_dir(fixture.path("strict")).expect("a folder");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(format!("{model}/{file}"), fixture.path(&format!("strict/{file}"))).expect("copies");
    }
    fixture.write(
        "strict/chat_template.jinja",
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}{{ m.role + ': ' + \
         m.content + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
    );
    let strict = |more: &[&str]| {
        let mut command = fixture.on_files(&["finetune", "--out", "run", "--model", "strict", "--epochs", "1"]);
        command.args(more);
        command
    };
    insta::assert_snapshot!(complains(&fixture, strict(&[]), 2), @r"
    error: 14 of 40 rows are bad, more than the 1 that are allowed; the first:
      train.jsonl, line 1: expected a conversation that the model's chat template takes, found: no system turns
      train.jsonl, line 4: expected a conversation that the model's chat template takes, found: no system turns
      train.jsonl, line 7: expected a conversation that the model's chat template takes, found: no system turns
      train.jsonl, line 10: expected a conversation that the model's chat template takes, found: no system turns
      train.jsonl, line 13: expected a conversation that the model's chat template takes, found: no system turns
    hint: mend the rows, or allow more of them with `--max-bad <share>`: they are then left out and listed in rejects.jsonl
    ");
    let said = succeeds(strict(&["--max-bad", "0.5"]));
    assert!(said.contains("Trained: 26 rows"), "{said}");
    let rejects = fixture.read("run/rejects.jsonl");
    assert_eq!(rejects.lines().count(), 22);
    insta::assert_snapshot!(rejects.lines().next().unwrap_or_default(), @r#"{"file":"train.jsonl","line":1,"reason":"expected a conversation that the model's chat template takes, found: no system turns"}"#);
}
