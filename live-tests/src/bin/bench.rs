//! `make bench`: measures, prints the table, and writes `target/bench/bench.json`.

use std::path::Path;

use emergent_live_tests::{
    Engine, Runtime,
    bench::{Row, Target, mcp, microvm, print_table, rows::Subject, write_json},
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
    rows.extend(mcp::rows().await);
    rows.extend(microvm::rows().await);
    print_table(&rows);
    write_json(&rows, Path::new("target/bench/bench.json"))
}
