//! PostgreSQL: a pool of connections, on which tables are found in the schemas `kb` and `core`.

use std::{str::FromStr as _, time::Duration};

use sea_orm::{ConnectOptions, Database, DatabaseConnection};
use sqlx::{ConnectOptions as _, Connection as _, Error as SqlxError, postgres::PgConnectOptions};
use tokio::time::timeout;

use crate::error::OpenError;

/// The schemas, in the order in which tables are looked for. New ones are made in the first.
pub(crate) const SCHEMAS: [&str; 2] = ["kb", "core"];

/// The most connections of one server. PostgreSQL takes 100 in all unless it is told otherwise.
const CONNECTIONS: u32 = 10;
/// The time that a first connection may take, and that a caller waits for one while the database is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// The parameters of an address that are understood. sqlx would log the values of others, which may be secrets.
const PARAMETERS: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Reads an address. The reason never repeats it: it may hold a password.
pub(crate) fn read(address: &str) -> Result<PgConnectOptions, String> {
    let (before, parameters) = address.split_once('?').unwrap_or((address, ""));
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let key = parameter.split('=').next().unwrap_or_default();
        if !PARAMETERS.contains(&key) {
            return Err(format!("it takes the parameters {}", PARAMETERS.join(", ")));
        }
    }
    let options = PgConnectOptions::from_str(address).map_err(|_| "it is no URL".to_owned())?;
    let after_scheme = before.split_once("://").map_or("", |(_, rest)| rest);
    let in_path = after_scheme.split_once('/').is_some_and(|(_, database)| !database.is_empty());
    let named = in_path || parameters.split('&').any(|parameter| parameter.starts_with("dbname="));
    if named { Ok(options) } else { Err("it names no database".to_owned()) }
}

/// The address without its secrets, for people.
pub(crate) fn describe(options: &PgConnectOptions) -> String {
    let (user, database) = (options.get_username(), options.get_database().unwrap_or_default());
    match options.get_socket() {
        Some(directory) => format!("postgres://{user}@localhost/{database}?host={}", directory.display()),
        None => format!("postgres://{user}@{}:{}/{database}", options.get_host(), options.get_port()),
    }
}

/// Connects. A database that is away fails this within seconds; later, callers wait a little for it to come back.
pub(crate) async fn pool(address: &str) -> Result<DatabaseConnection, OpenError> {
    let options = read(address).map_err(|reason| OpenError::Address { reason })?;
    let options = options.options([
        ("search_path", SCHEMAS.join(",").as_str()),
        // A server that is suspended in the midst of a transaction must not keep the others waiting.
        ("idle_in_transaction_session_timeout", "10s"),
        ("lock_timeout", "30s"),
        ("timezone", "UTC"),
        ("client_min_messages", "warning"),
    ]);
    let options = if options.get_application_name().is_none() { options.application_name("emergent") } else { options };
    try_once(&options).await?;
    let mut pool = ConnectOptions::new(address);
    pool.max_connections(CONNECTIONS)
        .min_connections(1)
        .acquire_timeout(PATIENCE)
        // The database may have been started again: a connection that is dead is noticed before it is used.
        .test_before_acquire(true)
        .sqlx_logging(false)
        .map_sqlx_postgres_opts(move |_| options.clone().disable_statement_logging());
    Database::connect(pool).await.map_err(OpenError::Connect)
}

/// Opens one connection and closes it: its error has a cause, where a pool only says that the wait was in vain.
async fn try_once(options: &PgConnectOptions) -> Result<(), OpenError> {
    let connected = timeout(PATIENCE, options.connect()).await.unwrap_or(Err(SqlxError::PoolTimedOut));
    let closed = match connected {
        Ok(connection) => connection.close().await,
        Err(error) => Err(error),
    };
    closed.map_err(|error| OpenError::Unreachable {
        url: describe(options),
        reason: match &error {
            SqlxError::PoolTimedOut => format!("no answer within {} s", PATIENCE.as_secs()),
            SqlxError::Database(error) => error.message().to_owned(),
            other => other.to_string(),
        },
        advice: advice(&error),
    })
}

fn advice(error: &SqlxError) -> &'static str {
    let code = error.as_database_error().and_then(|error| error.code());
    // rustls' refusals arrive as failures of the connection.
    let is_tls = matches!(error, SqlxError::Tls(_)) || error.to_string().contains("certificate");
    match code.as_deref() {
        Some("28P01") => "check the user and the password in DATABASE_URL",
        Some("28000") => "check the user and sslmode in DATABASE_URL, and the server's pg_hba.conf",
        Some("3D000") => "make the database with `createdb`, or name one that is there",
        Some("53300") => "raise PostgreSQL's max_connections, or let fewer servers share it",
        _ if is_tls => {
            "check sslmode (disable, prefer, require, verify-ca, verify-full) and sslrootcert in DATABASE_URL"
        }
        _ => "check that PostgreSQL runs there and lets this host in",
    }
}
