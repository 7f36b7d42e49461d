//! `make bench`: measures, prints the table, and writes `target/bench/bench.json`.

use std::path::Path;

use emergent_live_tests::{
    Engine, Runtime,
    bench::{Row, Target, microvm, print_table, rows::Subject, write_json},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let engine = Engine::connect()?;
    let mut rows = Vec::new();
    for runtime in Runtime::DOCKER {
        if engine.has_runtime(runtime.name()).await? {
            rows.extend(Subject::on(runtime).await?.rows().await);
        } else {
            let why = "Docker has no such runtime here";
            rows.push(Row::missing("every row", runtime.name(), "ms", Target::AtMost(1.0), why));
        }
    }
    let not_built = "this build does not have it";
    rows.push(Row::missing("hosted MCP echo over direct stdio", "runc", "ms", Target::OursAtMost(1.0), not_built));
    rows.extend(microvm::rows().await);
    print_table(&rows);
    write_json(&rows, Path::new("target/bench/bench.json"))
}
