//! Expected texts are those of Jinja itself, in the settings of transformers:
//!
//! ```python
//! environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
//! environment.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
//!     x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
//! environment.from_string(template).render(messages=messages, tools=tools, documents=None, add_generation_prompt=False, ...)
//! ```

use std::fs;

use serde_json::json;

use super::*;

/// ChatML as small models write it.
const CHATML: &str = r"{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a test.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Headers and calls of functions as Llama 3 has them.
const LLAMA: &str = r#"{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Functions:\n\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" + message.content + "<|eot_id|>" }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls | length != 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {{- '{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"#;

/// Instructions as Mistral has them.
const MISTRAL: &str = r"{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}
{% endfor %}";

/// Tools and thinking as Qwen 3 has them: what was thought before the last question is left out.
const QWEN: &str = r#"{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "Tools\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(last_query=-1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == 'user' %}
        {%- set ns.last_query = messages|length - 1 - loop.index0 %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content if message.content is string else '' %}
        {%- set thinking = '' %}
        {%- if '</think>' in content %}
            {%- set thinking = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- generation %}
        {%- if loop.index0 > ns.last_query and thinking %}
            {{- '<think>\n' + thinking.strip('\n') + '\n</think>\n\n' }}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls %}
            {%- if content or not loop.first %}
                {{- '\n' }}
            {%- endif %}
            {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
        {%- endgeneration %}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- elif message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"#;

/// A generation prompt that makes the model think, and turns without it, as DeepSeek R1 has them.
const THINKER: &str = r"{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<|User|>' + message.content }}
    {%- elif message.tool_calls %}
        {{- '<|Assistant|><tool>' + message.tool_calls[0].function.name + '</tool>' + eos_token }}
    {%- else %}
        {{- '<|Assistant|>' + message.content.split('</think>')[-1].strip() + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|Assistant|><think>\n' }}
{%- endif %}";

/// What Python shows in its own way.
const VALUES: &str = r"{{ none }} {{ true }} {{ 1.0 }} {{ messages[0] }} {{ [1, 'a', none] }}
{% set values = {'a': [1, {}, []], 'é<&>': 'x\n'} %}
{{ values | tojson }}
{{ values | tojson(indent=2) }}
{{ values | tojson(separators=(',', ':'), ensure_ascii=True) }}
{{ 'a,b'.split(',')[-1] }} {{ 'x'.upper() }} {{ 'abc'[1:] }} {{ tools is none }} {{ documents is none }} {{ bos_token }} {{ pad_token is defined }}
    {# left out #}
    {% for number in range(5) %}{% if number == 1 %}{% continue %}{% endif %}{% if number == 3 %}{% break %}{% endif %}{{ number }}{% endfor %}

{{ messages | length ~ 'x' }}
";

fn template(source: &str) -> ChatTemplate {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
    ChatTemplate::parse(source, tokens.map(|(name, token)| (name.to_owned(), token.into()))).expect("parses")
}

fn said(role: &str, content: &str) -> Json {
    json!({"role": role, "content": content})
}

fn called(name: &str) -> Json {
    json!({"role": "assistant", "content": null, "tool_calls": [
        {"function": {"arguments": {"city": "Zürich", "days": 2}, "name": name}, "type": "function"}]})
}

/// Two questions, the first answered with thinking.
fn thinking() -> [Json; 4] {
    [
        said("user", "What is yes?"),
        said("assistant", "<think>\nyes\n</think>\n\nyes"),
        said("user", "And no?"),
        said("assistant", "<think>\nno\n</think>\n\nno"),
    ]
}

fn weather() -> [Json; 5] {
    [
        said("system", "Be brief. "),
        said("user", "Weather?"),
        called("weather"),
        said("tool", "sun"),
        said("assistant", "Sunny."),
    ]
}

fn tools() -> Json {
    json!([{"function": {"name": "weather", "parameters": {"city": "<string>"}}, "type": "function"}])
}

/// The text with what is learned in brackets.
fn learned(template: &ChatTemplate, messages: &[Json], tools: Option<&Json>) -> String {
    let Rendered { mut text, learned } = template.conversation(messages, tools).expect("a conversation");
    for range in learned.into_iter().rev() {
        text.insert(range.end, '⟧');
        text.insert(range.start, '⟦');
    }
    text
}

#[test]
fn chatml_is_rendered_and_its_answers_are_learned() {
    let turns = [
        said("user", "Hi"),
        said("assistant", "Hello"),
        said("user", "Bye"),
        said("assistant", "So long"),
    ];
    let chatml = template(CHATML);
    assert_eq!(
        chatml.render(&turns[..3], None, true).expect("renders"),
        "<|im_start|>system\nYou are a test.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n\
         <|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        learned(&chatml, &turns, None),
        "<|im_start|>system\nYou are a test.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
         <|im_start|>assistant\n⟦Hello<|im_end|>\n⟧<|im_start|>user\nBye<|im_end|>\n\
         <|im_start|>assistant\n⟦So long<|im_end|>\n⟧"
    );
}

#[test]
fn a_template_refuses_a_conversation_in_its_own_words() {
    let turns = [
        said("user", "Hi"),
        said("assistant", "Hello"),
        said("user", "Bye"),
        said("assistant", "So long"),
    ];
    let mistral = template(MISTRAL);
    assert_eq!(
        learned(&mistral, &turns, None),
        "<s>[INST] Hi [/INST]⟦ Hello</s>⟧[INST] Bye [/INST]⟦ So long</s>⟧"
    );
    assert_eq!(
        mistral.conversation(&turns[1..], None),
        Err("Conversation roles must alternate user/assistant/user/assistant/...".to_owned())
    );
    let error = mistral.render(&[said("user", "Hi"), json!({"role": "assistant"})], None, false);
    insta::assert_snapshot!(error.expect_err("says nothing"), @"invalid operation: tried to use + operator on unsupported types string and undefined (in chat_template:5)");
}

#[test]
fn calls_of_tools_are_learned_and_their_results_are_not() {
    assert_eq!(
        learned(&template(LLAMA), &weather(), Some(&tools())),
        r#"<s><|start_header_id|>system<|end_header_id|>

Functions:

{
    "function": {
        "name": "weather",
        "parameters": {
            "city": "<string>"
        }
    },
    "type": "function"
}

Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>

Weather?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

⟦{"name": "weather", "parameters": {"city": "Zürich", "days": 2}}<|eot_id|>⟧<|start_header_id|>ipython<|end_header_id|>

sun<|eot_id|><|start_header_id|>assistant<|end_header_id|>

⟦Sunny.<|eot_id|>⟧"#
    );
    assert_eq!(
        learned(&template(QWEN), &weather(), Some(&tools())),
        r#"<|im_start|>system
Be brief. 

Tools
<tools>
{"function": {"name": "weather", "parameters": {"city": "<string>"}}, "type": "function"}
</tools><|im_end|>
<|im_start|>user
Weather?<|im_end|>
<|im_start|>assistant
⟦<tool_call>
{"name": "weather", "arguments": {"city": "Zürich", "days": 2}}
</tool_call><|im_end|>
⟧<|im_start|>user
<tool_response>
sun
</tool_response><|im_end|>
<|im_start|>assistant
⟦Sunny.<|im_end|>
⟧"#
    );
}

#[test]
fn turns_that_a_template_rewrites_are_found_behind_what_was_asked() {
    // The question has the answer's word, and what was thought before the last question is gone.
    assert_eq!(
        learned(&template(QWEN), &thinking(), None),
        "<|im_start|>user\nWhat is yes?<|im_end|>\n<|im_start|>assistant\n⟦yes<|im_end|>\n⟧\
         <|im_start|>user\nAnd no?<|im_end|>\n<|im_start|>assistant\n⟦<think>\nno\n</think>\n\nno<|im_end|>\n⟧"
    );
    let thinker = template(THINKER);
    assert_eq!(
        learned(&thinker, &thinking(), None),
        "<|User|>What is yes?<|Assistant|>⟦yes</s>⟧<|User|>And no?<|Assistant|>⟦no</s>⟧"
    );
    // The prompt's `<think>` and the turn's `<tool>` begin alike.
    assert_eq!(
        learned(&thinker, &[said("user", "Now?"), called("now")], None),
        "<|User|>Now?<|Assistant|>⟦<tool>now</tool></s>⟧"
    );
    // An assistant that begins, under a template that looks at the first turn.
    assert_eq!(
        learned(&template(QWEN), &thinking()[3..], None),
        "<|im_start|>assistant\n⟦<think>\nno\n</think>\n\nno<|im_end|>\n⟧"
    );
    assert_eq!(
        learned(&template(LLAMA), &thinking()[3..], None),
        "<s><|start_header_id|>system<|end_header_id|>\n\n<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n\
         ⟦<think>\nno\n</think>\n\nno<|eot_id|>⟧"
    );
}

#[test]
fn what_the_assistant_says_must_show() {
    let turns = [said("user", "Hi"), said("assistant", "Hello"), said("user", "Bye")];
    let silent = template("{{ messages[0].content }}");
    insta::assert_snapshot!(silent.conversation(&turns, None).expect_err("does not show"), @"the template does not show what the assistant says in turn 2");
    insta::assert_snapshot!(silent.conversation(&turns[..1], None).expect_err("no answer"), @"no turn of the conversation is the assistant's");
}

#[test]
fn the_plain_form_is_as_it_is_told() {
    let turns = [
        said("system", "Be brief."),
        said("user", "What is the capital of France?"),
        said("assistant", "Paris."),
    ];
    let plain = ChatTemplate::plain("</s>");
    assert_eq!(
        learned(&plain, &turns, None),
        "System: Be brief.\n\nUser: What is the capital of France?\n\nAssistant:⟦ Paris.</s>⟧"
    );
    assert_eq!(
        learned(&plain, &weather()[1..], Some(&json!([{"name": "weather"}]))),
        "Tools: [{\"name\": \"weather\"}]\n\nUser: Weather?\n\nAssistant:⟦ [{\"function\": {\"arguments\": {\"city\": \"Zürich\", \
         \"days\": 2}, \"name\": \"weather\"}, \"type\": \"function\"}]</s>⟧\n\nTool: sun\n\nAssistant:⟦ Sunny.</s>⟧"
    );
}

#[test]
fn values_and_blocks_are_those_of_transformers() {
    let shown = template(VALUES).render(&[json!({"content": "it's", "role": "user"})], None, false);
    assert_eq!(
        shown.expect("renders"),
        r#"None True 1.0 {'content': "it's", 'role': 'user'} [1, 'a', None]
{"a": [1, {}, []], "é<&>": "x\n"}
{
  "a": [
    1,
    {},
    []
  ],
  "é<&>": "x\n"
}
{"a":[1,{},[]],"\u00e9<&>":"x\n"}
b X bc True True <s> False
02
1x"#
    );
}

#[test]
fn a_template_without_end_is_stopped() {
    let endless = template("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}");
    insta::assert_snapshot!(endless.render(&[], None, false).expect_err("stops"), @"engine ran out of fuel (in chat_template:1)");
}

#[test]
fn a_template_is_read_where_transformers_keeps_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = ModelFiles::Folder(folder.path().to_path_buf());
    let read = || ChatTemplate::read(&files, ToOwned::to_owned);
    let rendered = || {
        let template = read().expect("reads").expect("has one");
        template.render(&[], None, false).expect("renders")
    };
    let configure = |template: Json| {
        let config = json!({"add_bos_token": true, "bos_token": {"content": "<b>"}, "chat_template": template});
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).expect("writes");
    };
    let complaint = || {
        let error = read().expect_err("is refused").to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    };
    assert!(read().expect("reads").is_none());
    let map = json!({"bos_token": "<old>", "eos_token": "<e>"});
    fs::write(folder.path().join("special_tokens_map.json"), map.to_string()).expect("writes");
    configure(Json::Null);
    assert!(read().expect("reads").is_none());
    configure(json!("{{ bos_token + eos_token }}\n"));
    assert_eq!(rendered(), "<b><e>");
    configure(json!([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "default"}]));
    assert_eq!(rendered(), "default");
    configure(json!([{"name": "only", "template": "{{ strftime_now('%%') }}"}]));
    assert_eq!(rendered(), "%");
    configure(json!([{"name": "a", "template": "a"}, {"name": "b", "template": "b"}]));
    insta::assert_snapshot!(complaint(), @"tokenizer_config.json: expected one chat_template, or one of them named `default`, found 2 without that name");
    fs::write(folder.path().join("chat_template.jinja"), "{% if %}").expect("writes");
    insta::assert_snapshot!(complaint(), @"chat_template.jinja: expected a template in Jinja, found a mistake (syntax error: unexpected end of block (in chat_template:1))");
    fs::write(folder.path().join("chat_template.jinja"), "beside").expect("writes");
    assert_eq!(rendered(), "beside");
}
