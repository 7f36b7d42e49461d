//! The calls of the kernel that programs may make on a runtime that shares the host's: the filter that the engine is
//! given with each container.
//!
//! The engine's own filter allows io_uring, contexts of asynchronous I/O, and sockets of nearly every family. A file
//! that is open in a ring alone is found in no table of descriptors, and so is not counted as disk. The kernel has so
//! many contexts of asynchronous I/O for all workspaces together (`fs.aio-max-nr`), and one call takes them all. A
//! socket of the family vsock leads past every network to the machine's hypervisor, and processes that send to each
//! other by netlink keep memory that no control group counts. This filter allows none of these, and for the rest what
//! Docker's documentation says of its default filter: all calls of the kernel's tables for x86-64, i386 and arm64
//! (`unistd.h` of Linux 6.1, and what releases up to 6.18 have added) but those that it lists as blocked, for a
//! container without further capabilities (<https://docs.docker.com/engine/security/seccomp/>, read together with
//! `seccomp/default.json` of <https://github.com/moby/profiles> at 836ae4d). Names that an engine does not know are
//! passed over by it.

use serde_json::{Value, json};

/// Calls that are allowed whatever their arguments are.
const ALLOWED: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown \
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark \
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock \
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex \
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu \
    getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer \
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 \
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr \
    listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier \
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep \
    newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect \
    poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 \
    pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 \
    recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq \
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity \
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop \
    semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area \
    set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid \
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid \
    setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 \
    sigprocmask sigreturn splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync \
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime \
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime \
    utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";
/// Allowed for whoever may be traced anyway.
const TRACING: [&str; 3] = ["ptrace", "process_vm_readv", "process_vm_writev"];
/// Calls of one kind of processor, by the engine's word for it.
const OF_PROCESSORS: [(&str, &[&str]); 2] = [
    ("amd64", &["arch_prctl", "modify_ldt"]),
    ("arm64", &["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"]),
];
/// Processors, each with those whose programs its kernel runs too.
const PROCESSORS: [(&str, &[&str]); 2] =
    [("SCMP_ARCH_X86_64", &["SCMP_ARCH_X86", "SCMP_ARCH_X32"]), ("SCMP_ARCH_AARCH64", &["SCMP_ARCH_ARM"])];
/// Calls that are answered as by a kernel that has none (`ENOSYS`), so that programs take another way: the flags of
/// `clone3` and the family of `socketcall` (i386) are in memory, where no filter can see them, and `io_setup` takes
/// from what all workspaces share.
const ABSENT: [&str; 3] = ["clone3", "io_setup", "socketcall"];
const ENOSYS: u32 = 38;
/// The flags of `clone` that make namespaces.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// The ways of execution that `personality` may set: Linux's own (also without random addresses), and 32 bits.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// The families of sockets that programs in a workspace need: AF_UNIX, AF_INET and AF_INET6. Nothing there speaks the
/// others (buses of cars, radio, clusters), and each is more of the kernel's code within reach.
const FAMILIES: [u64; 3] = [1, 2, 10];
/// AF_NETLINK, of which only NETLINK_ROUTE is allowed: only the kernel answers there.
const NETLINK: u64 = 16;
const NETLINK_ROUTE: u64 = 0;
/// The answer for other protocols of netlink, as of a kernel without them: `useradd` and PAM go on without an audit log
/// then, and with no other error.
const EPROTONOSUPPORT: u32 = 93;

/// The filter, as an option of the engine.
pub(crate) fn option() -> String {
    format!("seccomp={}", profile())
}

fn profile() -> Value {
    let allowed = ALLOWED.split_whitespace().collect::<Vec<_>>();
    let first = |operator: &str, value: u64| json!([{ "index": 0, "op": operator, "value": value }]);
    let mut calls = vec![
        json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" }),
        // Before Linux 4.8 whoever traced was not filtered.
        json!({ "names": TRACING, "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } }),
        json!({ "names": ABSENT, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }),
        json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": first("SCMP_CMP_MASKED_EQ", NEW_NAMESPACES),
        }),
    ];
    calls.extend(OF_PROCESSORS.iter().map(|(processor, names)| {
        json!({ "names": names, "action": "SCMP_ACT_ALLOW", "includes": { "arches": [processor] } })
    }));
    calls.extend(FAMILIES.map(|family| {
        let args = first("SCMP_CMP_EQ", family);
        json!({ "names": ["socket", "socketpair"], "action": "SCMP_ACT_ALLOW", "args": args })
    }));
    let netlink = |operator: &str| {
        json!([
            { "index": 0, "op": "SCMP_CMP_EQ", "value": NETLINK },
            { "index": 2, "op": operator, "value": NETLINK_ROUTE },
        ])
    };
    calls.push(json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": netlink("SCMP_CMP_EQ") }));
    calls.push(json!({
        "names": ["socket"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": EPROTONOSUPPORT,
        "args": netlink("SCMP_CMP_NE"),
    }));
    calls.extend(PERSONALITIES.iter().map(|personality| {
        json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": first("SCMP_CMP_EQ", *personality) })
    }));
    let processors = PROCESSORS.iter().map(|(own, others)| json!({ "architecture": own, "subArchitectures": others }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": processors.collect::<Vec<_>>(),
        "syscalls": calls,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_call_is_allowed_that_reaches_past_the_limits_of_a_workspace() {
        let allowed = ALLOWED.split_whitespace().collect::<Vec<_>>();
        let known = allowed.iter().collect::<BTreeSet<_>>();
        assert_eq!(known.len(), allowed.len(), "a call is named twice");
        let refused = [
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "socket",
            "socketpair",
            "socketcall",
            "io_setup",
            "clone",
            "clone3",
            "unshare",
            "setns",
            "mount",
            "bpf",
            "keyctl",
            "add_key",
            "userfaultfd",
            "perf_event_open",
            "open_by_handle_at",
            "kexec_load",
            "init_module",
            "personality",
            "pidfd_getfd",
            "pivot_root",
            "quotactl",
            "swapon",
        ];
        for name in refused {
            assert!(!known.contains(&name), "{name}");
        }
    }
}
