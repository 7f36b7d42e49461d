//! Every environment variable of this program: its name, its default, what it takes, and what it means. The settings
//! file has the same names (in either case) as its keys. `emergent serve --help` prints this list.

/// The part of the program that reads a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// `emergent serve`, from the environment, a file and flags.
    Server,
    /// `emergent firecracker-manager`, from the environment and flags.
    Manager,
    /// The client commands, from the environment and flags.
    Client,
}

/// An environment variable.
#[derive(Debug)]
pub(crate) struct Variable {
    /// The variable's name.
    pub(crate) name: &'static str,
    /// The variable's default, as people would write it; empty for none.
    pub(crate) default: &'static str,
    /// The values that it takes, in words that complete "NAME takes …".
    pub(crate) takes: &'static str,
    /// The variable's meaning.
    pub(crate) meaning: &'static str,
    /// The variable's value is a secret: never shown, not even when it is malformed.
    pub(crate) secret: bool,
    /// The part of the program that reads it.
    pub(crate) reader: Reader,
}

macro_rules! variables {
    ($($(#[doc = $doc:literal])+ $reader:ident $name:ident $(($secret:ident))? = $default:literal, $takes:literal;)+) => {
        $(
            $(#[doc = $doc])+
            pub(crate) const $name: &Variable = &Variable {
                name: stringify!($name),
                default: $default,
                takes: $takes,
                meaning: concat!($($doc,)+),
                secret: variables!(@secret $($secret)?),
                reader: Reader::$reader,
            };
        )+

        /// All variables, in the order in which they are explained.
        pub(crate) const ALL: &[&Variable] = &[$($name,)+];
    };
    (@secret secret) => { true };
    (@secret) => { false };
}

variables! {
    /// Switches workspaces on. While it is not true, the server runs and workspace calls answer a problem.
    Server ENABLE_AGENT_WORKSPACES = "false", "true or false";
    /// The provider of requests that name none. Empty or `auto` chooses by itself.
    Server WORKSPACE_DEFAULT_PROVIDER = "gvisor", "gvisor, firecracker, e2b, or auto";
    /// How many workspaces may be creating, ready or paused at once; more are refused with 429.
    Server WORKSPACE_MAX_CONCURRENT = "10", "a whole number from 1 to 100000";
    /// How much of the disk where an engine keeps its files stays free. Before it is touched, creates and uploads are
    /// refused with 507, and workspaces that write are ended. Held where the engine runs on this machine.
    Server WORKSPACE_DISK_RESERVE = "2G", "an amount of bytes such as 2G; 0 keeps none";
    /// Days from its creation until a workspace is cleaned up, when the request does not say.
    Server WORKSPACE_DEFAULT_TTL_DAYS = "30", "a number of days above 0, at most 3650";
    /// Minutes between removals of rows and volumes that are old enough.
    Server WORKSPACE_CLEANUP_INTERVAL_MIN = "60", "a whole number of minutes from 1 to 10080";
    /// Seconds for which the engine may have something that no row knows before it is removed as an orphan.
    Server WORKSPACE_ORPHAN_GRACE_SEC = "60", "a whole number of seconds from 10 to 86400";
    /// Days for which the row of a destroyed workspace is kept, with the history of its sessions.
    Server WORKSPACE_DESTROYED_RETENTION_DAYS = "30", "a number of days above 0, at most 3650";
    /// Days for which workspaces and snapshots are kept that the engine has and no row accounts for.
    Server WORKSPACE_LEFTOVER_RETENTION_DAYS = "14", "a number of days above 0, at most 3650";
    /// The action on a workspace that nobody uses, when the request names none. The next call resumes it.
    Server WORKSPACE_IDLE_ACTION = "none", "none, pause or stop";
    /// Minutes without calls and running processes after which the action is taken, when the request does not say.
    Server WORKSPACE_IDLE_AFTER_MIN = "30", "a number of minutes from 0.02 to 525600";
    /// Warns, in the log, a metric and `GET …/capacity`, when this share of WORKSPACE_MAX_CONCURRENT is in use.
    Server WORKSPACE_ALERT_THRESHOLD_PCT = "80", "a whole number of percent from 1 to 100";
    /// How much of a call's arguments the audit keeps: nothing; names of programs and paths, and lengths; or also how
    /// command lines and searches begin, with whatever secrets callers write into them.
    Server WORKSPACE_AUDIT_ARGUMENTS = "names", "none, names or commands";
    /// Days that the audit's rows are kept.
    Server WORKSPACE_AUDIT_RETENTION_DAYS = "90", "a whole number of days from 1 to 3650";
    /// Rows of the audit that are kept of each project; the clean-up deletes the oldest of those beyond.
    Server WORKSPACE_AUDIT_MAX_ROWS = "1000000", "a whole number from 1000 to 1000000000";
    /// Calls that a project may make in a second, on average; more are refused with 429. 0 for as many as it likes.
    Server WORKSPACE_RATE_LIMIT = "1000", "a whole number from 0 to 1000000";
    /// Calls that a project may make at once after a pause.
    Server WORKSPACE_RATE_BURST = "5000", "a whole number from 1 to 1000000";
    /// Seconds between samples of what each workspace uses.
    Server WORKSPACE_USAGE_INTERVAL_SEC = "60", "a whole number of seconds from 1 to 86400";
    /// Days that samples of use are kept.
    Server WORKSPACE_USAGE_RETENTION_DAYS = "14", "a whole number of days from 1 to 3650";
    /// CPU cores of a workspace, when the request does not say.
    Server WORKSPACE_DEFAULT_CPU = "2", "a number of cores from 0.01 to 1024, such as 2 or 0.5";
    /// Memory of a workspace, when the request does not say.
    Server WORKSPACE_DEFAULT_MEMORY = "4G", "an amount of bytes of at least 16M, such as 512M or 4G";
    /// Disk of a workspace, when the request does not say.
    Server WORKSPACE_DEFAULT_DISK = "10G", "an amount of bytes of at least 16M, such as 10G";
    /// How many sandboxes of each pooled image are kept ready, so that a create is a hand-over; 0 for none.
    Server WORKSPACE_WARM_POOL_SIZE = "0", "a whole number from 0 to 1000";
    /// The pooled images. Empty: the default image.
    Server WORKSPACE_WARM_POOL_IMAGES = "", "image references separated by commas";
    /// The Docker network for workspaces that may reach the internet; made if it is missing. Empty: one of our own.
    Server WORKSPACE_NETWORK_NAME = "", "the name of a Docker network";
    /// Addresses that workspaces may reach although they are the host's or private.
    Server WORKSPACE_NETWORK_ALLOW = "", "address ranges separated by commas, such as 10.1.2.0/24";
    /// The image of requests that name none.
    Server WORKSPACE_DEFAULT_IMAGE = "emergent/workspace:latest", "an image reference such as ubuntu:22.04";
    /// The images that requests may name, and those of Docker's own that they may use although no project has pulled
    /// them. Empty: any that can be pulled.
    Server WORKSPACE_ALLOWED_IMAGES = "", "globs separated by commas, such as ubuntu:*,registry.example/team/**";
    /// Logins for private registries: a file of the form that `docker login` writes (config.json with `auths`). Those
    /// in
    /// `projects`.NAME.`auths` are used for that project alone.
    Server WORKSPACE_REGISTRY_AUTH_FILE = "", "the path of a file";
    /// Registries in private networks, or on this host, that images of projects may be pulled from.
    Server WORKSPACE_PRIVATE_REGISTRIES = "", "hosts separated by commas, such as 10.1.2.3:5000,registry.internal";
    /// After how many days an image that was pulled for a project and from which nothing was made since is removed.
    Server WORKSPACE_PULLED_IMAGE_RETENTION_DAYS = "30", "a number from 0.00001 to 3650";
    /// Variables that every workspace and hosted MCP server gets unless it has its own, such as the addresses of package
    /// mirrors. Agents read them: no secrets.
    Server WORKSPACE_ENVIRONMENT = "", "NAME=VALUE separated by commas, such as PIP_INDEX_URL=https://mirror.example/simple";
    /// Certificates of private authorities that curl, git, pip, npm, Python and Node.js trust besides the image's own,
    /// in every workspace and hosted MCP server.
    Server WORKSPACE_CA_FILE = "", "the path of a PEM file";
    /// The name that gVisor is registered by in Docker.
    Server WORKSPACE_GVISOR_RUNTIME = "runsc", "the name of a Docker runtime";
    /// The weakest isolation that is taken; a weaker provider or runtime is refused.
    Server WORKSPACE_REQUIRE_ISOLATION = "any", "any, gvisor or hardware";
    /// The place where the server runs; decides the order in which `auto` tries providers.
    Server WORKSPACE_DEPLOYMENT_MODE = "self-hosted", "self-hosted or managed";
    /// The address of a manager of microVMs elsewhere, for the firecracker provider.
    Server WORKSPACE_FIRECRACKER_URL = "", "a URL such as http://10.1.2.3:8080";
    /// The API key of that manager.
    Server WORKSPACE_FIRECRACKER_TOKEN(secret) = "", "an API key of at least 16 characters";
    /// The directory of this server's own microVMs, for the firecracker provider without a manager elsewhere.
    Server WORKSPACE_FIRECRACKER_DIR = "", "the absolute path of a directory";
    /// The program that runs microVMs. `auto` is Firecracker where KVM works, else QEMU; `qemu-tcg` emulates even where
    /// KVM works.
    Server WORKSPACE_FIRECRACKER_DRIVER = "auto", "auto, firecracker, qemu or qemu-tcg";
    /// Whether Firecracker is put into jails. `auto`: where the server is root's and there is a jailer on PATH.
    Server WORKSPACE_FIRECRACKER_JAILER = "auto", "auto, none, or the absolute path of the jailer";
    /// The process that connects microVMs. `auto` is this process where it is root's, else none.
    Server WORKSPACE_FIRECRACKER_NETWORK = "auto", "auto, none, or the absolute path of the network helper's socket";
    /// How many snapshots of templates are kept, for microVMs to begin with instead of booting; 0 for none.
    Server WORKSPACE_FIRECRACKER_TEMPLATE_SNAPSHOTS = "4", "a whole number from 0 to 1000";
    /// The key of E2B's cloud. This release has no E2B provider yet.
    Server E2B_API_KEY(secret) = "", "an API key of E2B";
    /// The domain of a self-hosted E2B.
    Server E2B_DOMAIN = "", "a domain name";
    /// The API's address of a self-hosted E2B.
    Server E2B_API_URL = "", "a URL";
    /// Encrypts the credentials of the GitHub App. This release has no GitHub App yet.
    Server GITHUB_APP_ENCRYPTION_KEY(secret) = "", "64 hexadecimal digits, which are 32 bytes";
    /// The Docker Engine's address.
    Server DOCKER_HOST = "unix:///var/run/docker.sock", "unix:///path or tcp://host:port";
    /// Docker's wish for TLS. This release speaks plain HTTP to Docker and refuses to start rather than send that over
    /// TCP.
    Server DOCKER_TLS_VERIFY = "", "any text; empty or 0 for no TLS";
    /// The database that keeps the rows. Several servers can share a PostgreSQL database.
    Server DATABASE_URL(secret) = "sqlite://$EMERGENT_DATA_DIR/emergent.sqlite", "sqlite:///absolute/path or postgres://user:password@host:5432/database?sslmode=verify-full";
    /// The directory of the server's files. For root /var/lib/emergent-workspaces, else in the user's own data
    /// directory.
    Server EMERGENT_DATA_DIR = "", "the absolute path of a directory";
    /// The address to listen on. One that is not loopback needs TLS or EMERGENT_ALLOW_PLAINTEXT.
    Server EMERGENT_LISTEN = "127.0.0.1:7070", "an address and a port, such as 127.0.0.1:7070";
    /// The URL at which the other servers on the same PostgreSQL database reach this one, to pass requests on for its
    /// workspaces.
    Server EMERGENT_ADVERTISE_URL = "", "a URL such as https://10.1.2.3:7070";
    /// A private authority's certificates, by which this server trusts the others besides the system's own.
    Server EMERGENT_PEER_CA_FILE = "", "the path of a PEM file";
    /// Hosts that a reverse proxy passes on; a server on a loopback address answers for loopback names and these only.
    Server EMERGENT_ALLOWED_HOSTS = "", "host names separated by commas";
    /// The server's certificates, for TLS.
    Server EMERGENT_TLS_CERT = "", "the path of a PEM file";
    /// The private key of the certificate.
    Server EMERGENT_TLS_KEY = "", "the path of a PEM file";
    /// Lets the server listen on an address that others reach without TLS: tokens then travel in the clear.
    Server EMERGENT_ALLOW_PLAINTEXT = "false", "true or false";
    /// Encrypts secrets in rows, such as the environments of MCP servers. On SQLite one is made in the data directory's
    /// `secret-key`; servers that share a PostgreSQL database need the same one.
    Server EMERGENT_SECRET_KEY(secret) = "", "64 hexadecimal digits, which are 32 bytes";
    /// The longest body that the endpoint of an MCP server takes.
    Server EMERGENT_MCP_BODY_LIMIT = "8M", "an amount of bytes from 16K to 16M, such as 8M";
    /// How many MCP servers may be hosted, of all projects and on all servers of the installation; more are refused
    /// with 429.
    Server EMERGENT_MCP_MAX_SERVERS = "50", "a whole number from 0 to 100000";
    /// Sessions at most of an MCP server that has a process for each; one that shares a process has up to 1000.
    Server EMERGENT_MCP_MAX_SESSIONS = "32", "a whole number from 1 to 256";
    /// Minutes after which a session of an MCP server that nobody uses ends, and its process with it.
    Server EMERGENT_MCP_IDLE_MIN = "30", "a number of minutes from 0.02 to 525600";
    /// Variables of the installation of packages in MCP servers, such as a mirror's address; they go before those of
    /// WORKSPACE_ENVIRONMENT.
    Server EMERGENT_MCP_INSTALL_ENV = "", "NAME=VALUE separated by commas, such as PIP_INDEX_URL=https://mirror.example/simple";
    /// The same for the packages of one project alone, such as its login at a registry: only that project's
    /// installation scripts can read them. Those of a project go before those of all.
    Server EMERGENT_MCP_INSTALL_ENV_OF_PROJECTS(secret) = "", "PROJECT:NAME=VALUE separated by commas, such as team-red:NPM_TOKEN=npm_…";
    /// The guest binary that is put into workspaces. Empty: `emergent-guest` beside this program.
    Server EMERGENT_GUEST_PATH = "", "the path of a static executable";
    /// The messages that are logged.
    Server EMERGENT_LOG = "info,sea_orm_migration=warn", "a level or directives, such as debug or info,emergent_core=debug";
    /// The format of the log.
    Server EMERGENT_LOG_FORMAT = "text", "text or json";
    /// Connections that the server has at once, if the limit on its file descriptors is twice as much. A new one
    /// displaces one that has nothing under way; a sixteenth is for this machine alone. One project has at most a
    /// quarter as many calls under way.
    Server EMERGENT_MAX_CONNECTIONS = "4096", "a whole number from 16 to 1000000";
    /// Connections that one address has at once, if it is not this machine's.
    Server EMERGENT_MAX_CONNECTIONS_PER_ADDRESS = "256", "a whole number from 1 to 1000000";
    /// Memory that the bodies and answers of requests under way may hold; one project may hold three eighths of it.
    Server EMERGENT_MEMORY_BUDGET = "192M", "an amount of bytes of at least 192M";
    /// Seconds that calls under way get to end when the server is told to stop.
    Server EMERGENT_SHUTDOWN_GRACE_SECONDS = "10", "a whole number of seconds from 0 to 600";
    /// The settings file.
    Server EMERGENT_CONFIG = "", "the path of a TOML file";
    /// For tests of crashes: the server kills itself at this step.
    Server EMERGENT_FAULT = "", "the name of a step, such as create.sandbox_created";
    /// The address that the manager listens on. One that is not loopback needs an API key.
    Manager FIRECRACKER_LISTEN = "127.0.0.1:8080", "an address and a port";
    /// The key that callers of the manager send. Empty: only programs on this machine may call.
    Manager FIRECRACKER_API_KEY(secret) = "", "at least 16 printable characters";
    /// The directory of the manager's kernels, templates, sandboxes and snapshots.
    Manager FIRECRACKER_DIR = "/var/lib/firecracker-workspaces", "the absolute path of a directory";
    /// The program that runs the manager's machines. `auto` is Firecracker where KVM works, else QEMU; `qemu-tcg`
    /// emulates even where KVM works.
    Manager FIRECRACKER_DRIVER = "auto", "auto, firecracker, qemu or qemu-tcg";
    /// Whether Firecracker is put into jails. `auto`: where the manager is root's and there is a jailer on PATH.
    Manager FIRECRACKER_JAILER = "auto", "auto, none, or the absolute path of the jailer";
    /// The process that connects the manager's machines. `auto` is this process where it is root's, else none.
    Manager FIRECRACKER_NETWORK = "auto", "auto, none, or the absolute path of the network helper's socket";
    /// How many machines may run at once.
    Manager FIRECRACKER_MAX_RUNNING = "64", "a whole number from 1 to 10000";
    /// Memory of all machines together, in MiB. Empty: nine tenths of the host's, less 1 GiB.
    Manager FIRECRACKER_MEMORY_MB = "", "a whole number of MiB";
    /// Seconds until a sandbox is removed that was made without a time to live. Empty: never.
    Manager FIRECRACKER_DEFAULT_TTL_SECONDS = "", "a whole number of seconds";
    /// Seconds that a guest may take from its machine's start to its first answer.
    Manager FIRECRACKER_BOOT_SECONDS = "120", "a whole number of seconds from 1 to 600";
    /// How many snapshots of templates are kept, for sandboxes to begin with instead of booting; 0 for none.
    Manager FIRECRACKER_TEMPLATE_SNAPSHOTS = "4", "a whole number from 0 to 1000";
    /// The server that the client commands speak to. Empty: the one whose address stands in the data directory's
    /// `server-url`, else the one on http://127.0.0.1:7070.
    Client EMERGENT_SERVER = "", "a URL";
    /// A private authority's certificates, which the client commands trust besides the system's own.
    Client EMERGENT_CA_FILE = "", "the path of a PEM file";
    /// The session that the client commands call for: refused once another one holds the workspace.
    Client EMERGENT_SESSION = "", "a session id that `workspace attach` printed";
    /// The token that the client commands send. Empty: the one in the data directory's `bootstrap-token`.
    Client EMERGENT_TOKEN(secret) = "", "a token of the server";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_says_what_it_takes_and_means() {
        for variable in ALL {
            assert!(!variable.takes.is_empty() && variable.meaning.ends_with(['.']), "{}", variable.name);
        }
    }

    /// A row of the table that explains it.
    fn row(variable: &Variable) -> String {
        let default =
            if variable.default.is_empty() { "not set".to_owned() } else { format!("`{}`", variable.default) };
        format!("| `{}` | {default} | {} | {} |", variable.name, variable.takes, variable.meaning.trim())
    }

    fn table(reader: Reader) -> Vec<String> {
        let head = ["| variable | default | takes | meaning |".to_owned(), "| --- | --- | --- | --- |".to_owned()];
        head.into_iter().chain(ALL.iter().filter(|variable| variable.reader == reader).map(|it| row(it))).collect()
    }

    #[test]
    fn the_documentation_has_a_row_for_every_variable() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFIGURATION.md");
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let mut tables = [table(Reader::Server), table(Reader::Manager), table(Reader::Client)].into_iter();
        let parts = lines.chunk_by(|one, next| one.starts_with('|') == next.starts_with('|'));
        let right: Vec<_> = parts
            .flat_map(|part| match part[0].starts_with('|') {
                true => tables.next().expect("the page has three tables: the server's, the manager's, the client's"),
                false => part.to_vec(),
            })
            .collect();
        assert_eq!(tables.next(), None, "the page has three tables: the server's, the manager's, the client's");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(path, right.join("\n") + "\n").unwrap();
            return;
        }
        assert_eq!(lines, right, "docs/CONFIGURATION.md is stale; write its tables anew with UPDATE_SNAPSHOTS=1");
    }
}
