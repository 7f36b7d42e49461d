//! The text of an error with its causes.

/// Returns an error and its causes as one line, each after a colon. A cause whose text the line has already is left out,
/// since many errors repeat their cause.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        source: Option<Box<Told>>,
    }

    #[test]
    fn a_cause_that_the_line_has_already_is_told_once() {
        let chain = |texts: &[&'static str]| {
            let of = |source, text: &&'static str| Some(Box::new(Told { text, source }));
            error_chain(&*texts.iter().rev().fold(None, of).unwrap())
        };
        assert_eq!(chain(&["no image", "no route"]), "no image: no route");
        assert_eq!(
            chain(&["no image (the engine says: no route)", "no route", "in time"]),
            "no image (the engine says: no route): in time"
        );
    }
}
