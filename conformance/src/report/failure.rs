use std::fmt::Write;

use owo_colors::OwoColorize;

use crate::case::Case;
use crate::contract;
use crate::run::Report;

/// Formats a failure for people: the clauses with their texts, the calls, the expected and the actual
/// result, and the command that runs this case alone again.
pub(crate) fn failure(case: &Case, store: &str, report: &Report) -> String {
    let mut text = String::new();
    let also = report.failure.clause.filter(|clause| !case.clauses.contains(clause));
    let cited: Vec<_> = case.clauses.iter().copied().chain(also).collect();
    let (name, clauses) = (case.name(), cited.join(" "));
    let _ = writeln!(text, "{} {}  {name}   {}", "✗".red(), store.bold(), clauses.dimmed());
    for id in cited {
        let said = contract::clause(id).map_or("", |clause| clause.text);
        for (number, line) in wrap(said, 92).iter().enumerate() {
            let label = if number == 0 { id } else { "" };
            let _ = writeln!(text, "  {label:<8}  {line}");
        }
    }
    for (number, line) in report.transcript.iter().enumerate() {
        let label = if number == 0 { "calls" } else { "" };
        let _ = writeln!(text, "  {label:<8}  {line}");
    }
    // The result comes after the calls, since there may be hundreds of calls and readers look at the end first.
    let found = &report.failure;
    let _ = writeln!(text, "  expected  {}", found.expected);
    let _ = writeln!(text, "  got       {}", found.got);
    let _ = writeln!(text, "  at        {}:{}", found.at.file(), found.at.line());
    let _ = writeln!(text, "  again     {}", super::rerun::case(case, store, report.seed));
    text
}

/// Breaks a text at spaces into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
