//! Others that drop what we let through.
//!
//! A packet has to pass every table's chain on a hook, so a policy of dropping what is forwarded, as Docker sets it,
//! would keep guests from the internet whatever our table says. Docker leaves a chain for the administrator's rules,
//! `DOCKER-USER`, which it never empties; two rules there let our interfaces through, and what may pass is still
//! decided by our own table. They are the only rules outside of it. Where another table drops, we say so.

use serde::Deserialize;

use crate::{NetworkError, TAP_PREFIX, filter, nft};

const DOCKERS_CHAIN: &str = "DOCKER-USER";
/// Waits for others who change rules, instead of failing.
const WAIT: [&str; 2] = ["-w", "3"];

/// The part of nft's JSON that is looked at.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

/// Puts our rules into Docker's chain where Docker drops. Tells what drops all the same.
pub(crate) async fn open() -> Result<Vec<String>, NetworkError> {
    let chains = chains().await?;
    let has_dockers_chain = chains.iter().any(Chain::is_dockers);
    let mut warnings = Vec::new();
    for chain in chains.iter().filter(|chain| chain.drops_forwarded()) {
        match chain.is_iptables_forward() && has_dockers_chain {
            true => add_rules().await?,
            false => warnings.push(chain.warning()),
        }
    }
    Ok(warnings)
}

/// The rules of others that drop the machines' traffic. Changes nothing.
pub(crate) async fn obstacles() -> Result<Vec<String>, NetworkError> {
    let chains = chains().await?;
    let has_dockers_chain = chains.iter().any(Chain::is_dockers);
    let dropping = chains.iter().filter(|chain| chain.drops_forwarded());
    Ok(dropping.filter(|chain| !(chain.is_iptables_forward() && has_dockers_chain)).map(Chain::warning).collect())
}

/// Removes our rules from Docker's chain.
pub(crate) async fn close() -> Result<(), NetworkError> {
    if !chains().await?.iter().any(Chain::is_dockers) {
        return Ok(());
    }
    for rule in rules() {
        if iptables("-C", &rule).await.is_ok() {
            iptables("-D", &rule).await?;
        }
    }
    Ok(())
}

async fn add_rules() -> Result<(), NetworkError> {
    for rule in rules() {
        // Asked first, so that it is there once.
        if iptables("-C", &rule).await.is_err() {
            iptables("-I", &rule).await?;
        }
    }
    Ok(())
}

/// From our interfaces anything, to them only answers, should our own table ever be gone.
fn rules() -> [Vec<String>; 2] {
    let interfaces = format!("{TAP_PREFIX}+");
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    [
        words(&format!("-i {interfaces} -m comment --comment {} -j ACCEPT", filter::TABLE)),
        words(&format!(
            "-o {interfaces} -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment {} -j ACCEPT",
            filter::TABLE
        )),
    ]
}

async fn iptables(action: &str, rule: &[String]) -> Result<(), NetworkError> {
    let mut arguments = vec![WAIT[0], WAIT[1], action, DOCKERS_CHAIN];
    arguments.extend(rule.iter().map(String::as_str));
    nft::iptables("letting our interfaces through Docker's rules", &arguments).await
}

async fn chains() -> Result<Vec<Chain>, NetworkError> {
    let doing = "looking at the host's packet filter";
    let answer = nft::list_chains(doing).await?;
    let listing: Listing = serde_json::from_slice(&answer).map_err(|error| NetworkError::host(doing, error))?;
    Ok(listing.nftables.into_iter().filter_map(|item| item.chain).collect())
}

// === impl Chain ===

impl Chain {
    fn drops_forwarded(&self) -> bool {
        let is_ours = self.table == filter::TABLE;
        let sees_ipv4 = matches!(self.family.as_str(), "ip" | "inet");
        sees_ipv4 && !is_ours && self.hook.as_deref() == Some("forward") && self.policy.as_deref() == Some("drop")
    }

    fn is_iptables_forward(&self) -> bool {
        (self.family.as_str(), self.table.as_str(), self.name.as_str()) == ("ip", "filter", "FORWARD")
    }

    fn is_dockers(&self) -> bool {
        (self.family.as_str(), self.table.as_str(), self.name.as_str()) == ("ip", "filter", DOCKERS_CHAIN)
    }

    fn warning(&self) -> String {
        let Self { family, table, name, .. } = self;
        format!(
            "the chain `{name}` of the nftables table `{family} {table}` drops forwarded packets, so guests reach \
             nothing; let it accept what comes from `{TAP_PREFIX}*`, and answers to it"
        )
    }
}
