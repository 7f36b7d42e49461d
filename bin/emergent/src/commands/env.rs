//! `emergent env`: the server's address and token for other clients, for `eval` in a shell.

use crate::{cli::ClientArgs, client::Client, exit::ExitStatus, print};

/// Prints the server's address and the token.
pub(super) fn run(arguments: &ClientArgs) -> ExitStatus {
    let client = match Client::new(arguments) {
        Ok(client) => client,
        Err(error) => {
            print::error(&error.for_people());
            return ExitStatus::Failure;
        }
    };
    let token = match client.token() {
        Ok(token) => token,
        Err(error) => {
            print::error(&error.for_people());
            return ExitStatus::Failure;
        }
    };
    if arguments.json {
        print::json(&serde_json::json!({ "EMERGENT_SERVER": client.address(), "EMERGENT_TOKEN": token }));
    } else {
        print::line(&format!("export EMERGENT_SERVER={}", quoted(client.address())));
        print::line(&format!("export EMERGENT_TOKEN={}", quoted(token)));
    }
    ExitStatus::Success
}

/// Quotes a text as one word of a POSIX shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_one_word() {
        assert_eq!(quoted("http://127.0.0.1:1"), "'http://127.0.0.1:1'");
        assert_eq!(quoted("a'; rm -rf /"), r"'a'\''; rm -rf /'");
    }
}
