//! PromQL, limited to the names of metrics and labels: enough to compare dashboards and alert rules with a
//! worker's metrics. Unknown syntax is an error, never skipped.

use anyhow::{Context, Result, bail, ensure};

/// What of Prometheus' functions and aggregations our files use.
const FUNCTIONS: &[&str] = &[
    "abs",
    "absent",
    "avg",
    "clamp_min",
    "count",
    "histogram_quantile",
    "increase",
    "max",
    "min",
    "rate",
    "sum",
    "time",
    "vector",
];
const GROUPINGS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];
const WORDS: &[&str] = &["and", "or", "unless", "bool", "offset"];

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// The label.
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub operator: String,
    /// As written.
    pub value: String,
}

/// What an expression names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Metric names as written, with their conditions.
    pub selectors: Vec<(String, Vec<Matcher>)>,
    /// Labels that it groups by.
    pub grouped: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number,
    Sign(String),
}

/// Reads one expression.
///
/// # Errors
/// The unknown syntax.
pub fn read(expression: &str) -> Result<Named> {
    let tokens = tokens(expression).with_context(|| expression.to_owned())?;
    named(&tokens).with_context(|| expression.to_owned())
}

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let take = |test: fn(char) -> bool| rest.find(|char| !test(char)).unwrap_or(rest.len());
        let length = if first.is_ascii_alphabetic() || "_:$".contains(first) {
            let length = take(|char| char.is_ascii_alphanumeric() || "_:$".contains(char));
            tokens.push(Token::Word(rest[..length].to_owned()));
            length
        } else if first.is_ascii_digit() {
            let length = take(|char| char.is_ascii_alphanumeric() || char == '.');
            tokens.push(Token::Number);
            length
        } else if first == '"' {
            let end = rest[1..].find('"').context("a text without an end")?;
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            end + 2
        } else {
            let signs = ["=~", "!~", "!=", "==", ">=", "<="];
            let sign = signs.into_iter().find(|sign| rest.starts_with(sign)).unwrap_or(&rest[..1]);
            ensure!(sign.chars().all(|char| "(){}[],=~!<>+-*/%^".contains(char)), "what is {sign:?}?");
            tokens.push(Token::Sign(sign.to_owned()));
            sign.len()
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn named(tokens: &[Token]) -> Result<Named> {
    let mut named = Named::default();
    let mut open: Vec<&str> = Vec::new();
    let sign = |at: usize| match tokens.get(at) {
        Some(Token::Sign(sign)) => sign.as_str(),
        _ => "",
    };
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Word(word) if open.last() == Some(&"[") => ensure!(word.starts_with('$'), "{word} in []"),
            Token::Word(word) if GROUPINGS.contains(&word.as_str()) => {
                ensure!(sign(at) == "(", "no ( after {word}");
                let end = at
                    + tokens[at..]
                        .iter()
                        .position(|token| *token == Token::Sign(")".to_owned()))
                        .context("no )")?;
                for token in &tokens[at + 1..end] {
                    match token {
                        Token::Word(label) => named.grouped.push(label.clone()),
                        Token::Sign(comma) if comma == "," => {}
                        other => bail!("{other:?} in a list of labels"),
                    }
                }
                at = end + 1;
            }
            Token::Word(word) if WORDS.contains(&word.as_str()) => {}
            Token::Word(word) if FUNCTIONS.contains(&word.as_str()) => {
                let grouped =
                    matches!(tokens.get(at), Some(Token::Word(word)) if GROUPINGS.contains(&word.as_str()));
                ensure!(sign(at) == "(" || grouped, "{word} is a function");
            }
            Token::Word(word) => {
                ensure!(sign(at) != "(", "no such function: {word}");
                let mut matchers = Vec::new();
                if sign(at) == "{" {
                    at += 1;
                    while sign(at) != "}" {
                        let (Some(Token::Word(label)), operator, Some(Token::Text(value))) =
                            (tokens.get(at), sign(at + 1), tokens.get(at + 2))
                        else {
                            bail!("no condition at {:?}", tokens.get(at));
                        };
                        ensure!(["=", "!=", "=~", "!~"].contains(&operator), "{operator:?} in {{}}");
                        matchers.push(Matcher {
                            label: label.clone(),
                            operator: operator.to_owned(),
                            value: value.clone(),
                        });
                        at += 3 + usize::from(sign(at + 3) == ",");
                    }
                    at += 1;
                }
                named.selectors.push((word.clone(), matchers));
            }
            Token::Sign(sign) if ["(", "[", "{"].contains(&sign.as_str()) => open.push(sign),
            Token::Sign(sign) if [")", "]", "}"].contains(&sign.as_str()) => {
                let pair = format!("{}{sign}", open.pop().unwrap_or_default());
                ensure!(["()", "[]", "{}"].contains(&pair.as_str()), "{sign} closes nothing");
            }
            Token::Sign(_) | Token::Number | Token::Text(_) => {}
        }
    }
    ensure!(open.is_empty(), "{open:?} is not closed");
    ensure!(!named.selectors.is_empty(), "it names no metric");
    Ok(named)
}
