//! Tips for those who come from other tools: the command that does here what they have asked for.

use clap::{
    CommandFactory as _, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::Cli;

const RUN: &str = "a workspace is made once and runs any number of commands: `emergent workspace create --name NAME`, \
                   then `emergent workspace exec NAME -- COMMAND`";
const SHELL: &str = "`emergent workspace exec -i NAME -- bash` reads commands from standard input, and \
                     `emergent workspace exec NAME -c LINE` runs a line";
const TOP: &str = "`emergent workspace exec NAME -- ps aux` shows the processes in a workspace; what it uses is at GET \
                   /api/v1/agent/workspaces/NAME/usage";
const LIST: &str = "`emergent workspace ls` lists workspaces, and `emergent workspace logs NAME` what was run in one";
const SHOW: &str = "`emergent workspace show NAME` shows everything about a workspace";
const REMOVE: &str = "`emergent workspace rm NAME` destroys a workspace";
const STOP: &str = "`emergent workspace stop NAME` ends the processes of a workspace, and keeps its files";

/// Adds a tip to a mistake on the command line, where it is a habit of another tool.
pub(crate) fn add(error: &mut Error) {
    if let Some(tip) = tip(error) {
        // What is spelled alike is not what is meant.
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

fn tip(error: &Error) -> Option<String> {
    let given = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    // The commands before the place of the mistake, as the usage has them.
    let words = usage.split_whitespace().skip_while(|word| *word != "emergent").skip(1);
    let commands: Vec<_> = words.take_while(|word| !word.starts_with(['<', '['])).collect();
    match (error.kind(), commands.as_slice()) {
        (ErrorKind::InvalidSubcommand, []) => {
            let command = given(ContextKind::InvalidSubcommand)?;
            of_habit(command).map(str::to_owned).or_else(|| of_workspaces(command))
        }
        (ErrorKind::InvalidSubcommand, ["workspace"]) => {
            of_habit(given(ContextKind::InvalidSubcommand)?).map(str::to_owned)
        }
        (ErrorKind::UnknownArgument, commands) => of_argument(given(ContextKind::InvalidArg)?, commands),
        _ => None,
    }
}

/// The tip for a command of other tools.
fn of_habit(command: &str) -> Option<&'static str> {
    Some(match command {
        "run" => RUN,
        "shell" | "sh" | "bash" | "ssh" | "enter" => SHELL,
        "top" | "stats" => TOP,
        "ps" | "list" => LIST,
        "inspect" | "info" => SHOW,
        "delete" | "destroy" | "remove" => REMOVE,
        "kill" => STOP,
        _ => return None,
    })
}

/// The tip for a command of workspaces without the word.
fn of_workspaces(command: &str) -> Option<String> {
    let cli = Cli::command();
    let command = cli.find_subcommand("workspace")?.find_subcommand(command)?.get_name();
    Some(format!("workspaces have this command: `emergent workspace {command}`"))
}

fn of_argument(argument: &str, commands: &[&str]) -> Option<String> {
    match commands {
        ["workspace", "create"] if !argument.starts_with('-') => {
            Some(format!("the name is an option: `emergent workspace create --name {argument}`"))
        }
        [.., "rm"] if matches!(argument, "-f" | "--force") => {
            Some(format!("nothing has to be forced: leave {argument} out"))
        }
        _ => None,
    }
}
