//! Signals by name.

const NAMES: [(&str, i32); 29] = [
    ("SIGHUP", libc::SIGHUP),
    ("SIGINT", libc::SIGINT),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGILL", libc::SIGILL),
    ("SIGTRAP", libc::SIGTRAP),
    ("SIGABRT", libc::SIGABRT),
    ("SIGBUS", libc::SIGBUS),
    ("SIGFPE", libc::SIGFPE),
    ("SIGKILL", libc::SIGKILL),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGSEGV", libc::SIGSEGV),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGPIPE", libc::SIGPIPE),
    ("SIGALRM", libc::SIGALRM),
    ("SIGTERM", libc::SIGTERM),
    ("SIGCHLD", libc::SIGCHLD),
    ("SIGCONT", libc::SIGCONT),
    ("SIGSTOP", libc::SIGSTOP),
    ("SIGTSTP", libc::SIGTSTP),
    ("SIGTTIN", libc::SIGTTIN),
    ("SIGTTOU", libc::SIGTTOU),
    ("SIGURG", libc::SIGURG),
    ("SIGXCPU", libc::SIGXCPU),
    ("SIGXFSZ", libc::SIGXFSZ),
    ("SIGVTALRM", libc::SIGVTALRM),
    ("SIGPROF", libc::SIGPROF),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGIO", libc::SIGIO),
    ("SIGSYS", libc::SIGSYS),
];

/// Returns the name of a signal, such as `SIGKILL`; `SIG34` for a signal without a name.
pub fn name(number: i32) -> String {
    let named = NAMES.iter().find(|(_, known)| *known == number);
    named.map_or_else(|| format!("SIG{number}"), |(name, _)| (*name).to_owned())
}

/// Returns the number of a signal named with or without `SIG`, in either case.
pub fn number(name: &str) -> Option<i32> {
    let name = name.to_ascii_uppercase();
    let bare = name.strip_prefix("SIG").unwrap_or(&name);
    NAMES.iter().find(|(known, _)| &known["SIG".len()..] == bare).map(|(_, number)| *number)
}

/// Sends a signal to a process, or with a negative `pid` to a process group.
///
/// # Errors
/// The kernel's error, such as `ESRCH`.
#[expect(unsafe_code, reason = "kill(2) takes two integers and touches no memory")]
pub fn send(pid: i32, signal: i32) -> std::io::Result<()> {
    // SAFETY: the call has no memory effects.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        for (known, expected) in NAMES {
            assert_eq!(number(known), Some(expected));
            assert_eq!(name(expected), known);
        }
        assert_eq!(number("int"), Some(libc::SIGINT));
        assert_eq!(number("SIGNOPE"), None);
        assert_eq!(name(40), "SIG40");
    }
}
