//! The messages on the helper's socket: one JSON value a line, a request and then its answer.
//!
//! The helper's side of it is a privilege boundary: what is read here becomes types that can hold nothing but ids,
//! numbers and words of ours, and no text of a client's goes any further.

use std::{io, net::Ipv4Addr};

use emergent_types::NetworkPolicy;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    AttachRequest, AttachedMachine, Attachment, MacAddress, MachineId, NetworkError, NetworkLimits, NetworkStatus,
    Subnet, TapInterface, TapName, description,
};

/// The longest request: as many known machines as a `/16` has room for.
pub(crate) const LONGEST_REQUEST: u64 = 1 << 20;
/// The longest answer: as many interfaces.
pub(crate) const LONGEST_ANSWER: u64 = 8 << 20;

/// A client's request.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    Attach(Attach),
    Detach { machine: MachineId },
    List {},
    RemoveStrays { known: Vec<MachineId> },
    Status {},
}

/// The helper's answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Attached(Option<Interface>),
    Detached,
    Listed(Vec<Listed>),
    Removed(Vec<Name>),
    Status(Status),
    Failed(NetworkError),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attach {
    machine: MachineId,
    policy: Policy,
    pub(crate) owner: u32,
    #[serde(default)]
    limits: NetworkLimits,
    guest_address: Option<Ipv4Addr>,
    mac: Option<MacAddress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Policy(NetworkPolicy);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Name(pub(crate) TapName);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interface {
    name: Name,
    mac: MacAddress,
    guest_address: Ipv4Addr,
    name_servers: Vec<Ipv4Addr>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    name: Name,
    machine: Option<Machine>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Machine {
    id: MachineId,
    policy: Policy,
    guest_address: Ipv4Addr,
    mac: MacAddress,
    limits: NetworkLimits,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    warnings: Vec<String>,
    capacity: u32,
    attached: u32,
}

/// Reads a line; `None` at the end of the stream.
///
/// # Errors
/// The stream's, and `InvalidData` for a line that is too long, not whole or not what is expected.
pub(crate) async fn receive<T: DeserializeOwned>(
    reader: &mut (impl AsyncBufRead + Unpin),
    longest: u64,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    reader.take(longest).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    match line.strip_suffix(b"\n") {
        Some(whole) => serde_json::from_slice(whole).map(Some).map_err(|error| invalid(error.to_string())),
        None => Err(invalid(format!("a line is cut short or longer than {longest} bytes"))),
    }
}

/// Writes a line.
///
/// # Errors
/// The stream's.
pub(crate) async fn send(writer: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

// === impl Attach ===

impl From<&AttachRequest> for Attach {
    fn from(request: &AttachRequest) -> Self {
        let AttachRequest { machine, policy, owner, limits, guest_address, mac } = *request;
        Self { machine, policy: Policy(policy), owner, limits, guest_address, mac }
    }
}

impl From<Attach> for AttachRequest {
    fn from(attach: Attach) -> Self {
        let Attach { machine, policy, owner, limits, guest_address, mac } = attach;
        Self { machine, policy: policy.0, owner, limits, guest_address, mac }
    }
}

// === impl Policy ===

impl TryFrom<String> for Policy {
    type Error = &'static str;

    fn try_from(word: String) -> Result<Self, &'static str> {
        description::policy(&word).map(Self).ok_or("a policy is none, isolated or outbound")
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.0.as_str().to_owned()
    }
}

// === impl Name ===

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, &'static str> {
        TapName::parse(&name).map(Self).ok_or("no name of an interface of ours")
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_str().to_owned()
    }
}

// === impl Interface ===

impl From<TapInterface> for Interface {
    fn from(interface: TapInterface) -> Self {
        let TapInterface { name, mac, subnet, name_servers } = interface;
        Self { name: Name(name), mac, guest_address: subnet.guest(), name_servers }
    }
}

impl From<Interface> for TapInterface {
    fn from(interface: Interface) -> Self {
        let Interface { name, mac, guest_address, name_servers } = interface;
        Self { name: name.0, mac, subnet: Subnet::containing(guest_address), name_servers }
    }
}

// === impl Listed ===

impl From<Attachment> for Listed {
    fn from(attachment: Attachment) -> Self {
        let machine = attachment.machine.map(|AttachedMachine { id, policy, subnet, mac, limits }| Machine {
            id,
            policy: Policy(policy),
            guest_address: subnet.guest(),
            mac,
            limits,
        });
        Self { name: Name(attachment.name), machine }
    }
}

impl From<Listed> for Attachment {
    fn from(listed: Listed) -> Self {
        let machine = listed.machine.map(|Machine { id, policy, guest_address, mac, limits }| AttachedMachine {
            id,
            policy: policy.0,
            subnet: Subnet::containing(guest_address),
            mac,
            limits,
        });
        Self { name: listed.name.0, machine }
    }
}

// === impl Status ===

impl From<NetworkStatus> for Status {
    fn from(status: NetworkStatus) -> Self {
        let NetworkStatus { warnings, capacity, attached } = status;
        Self { warnings, capacity, attached }
    }
}

impl From<Status> for NetworkStatus {
    fn from(status: Status) -> Self {
        let Status { warnings, capacity, attached } = status;
        Self { warnings, capacity, attached }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], longest: u64) -> io::Result<Option<Request>> {
        let executor = tokio::runtime::Builder::new_current_thread().build().unwrap();
        executor.block_on(receive(&mut { bytes }, longest))
    }

    #[test]
    fn a_request_that_holds_more_than_ids_and_words_is_refused() {
        let id = uuid::Uuid::from_u128(7);
        let attach = |policy: &str, machine: &str, more: &str| {
            format!(r#"{{"attach":{{"machine":"{machine}","policy":"{policy}","owner":1000{more}}}}}"#) + "\n"
        };
        assert!(read(attach("outbound", &id.to_string(), "").as_bytes(), LONGEST_REQUEST).unwrap().is_some());
        let bad = [
            attach("everything", &id.to_string(), ""),
            attach("outbound", "$(reboot)", ""),
            attach("outbound", &id.to_string(), r#","name":"eth0""#),
            attach("outbound", &id.to_string(), r#","mac":"ff:ff:ff:ff:ff:ff""#),
            attach("outbound", &id.to_string(), r#","guest_address":"10.0.0.1; drop""#),
            attach("outbound", &id.to_string(), r#","limits":{"from_guest":{"bytes_per_second":0,"burst_bytes":0}}"#),
            "{\"attach\"\n".to_owned(),
            "\n".to_owned(),
        ];
        for line in bad {
            assert_eq!(
                read(line.as_bytes(), LONGEST_REQUEST).unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{line}"
            );
        }
    }

    #[test]
    fn a_line_without_an_end_is_read_no_further_than_allowed() {
        assert_eq!(read(&[b' '; 4096], 64).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(b"", 64).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes: Vec<u8>, tail in prop::bool::ANY) {
            let mut bytes = bytes;
            if tail { bytes.push(b'\n'); }
            read(&bytes, 256).ok();
        }

        #[test]
        fn no_nearly_right_line_breaks_the_reader(
            word in "attach|detach|list|remove_strays|status",
            key in "machine|policy|owner|known|limits|mac",
            value in "\\PC{0,30}|[0-9]{1,40}|\\[{0,200}",
        ) {
            read(format!("{{\"{word}\":{{\"{key}\":{value}}}}}\n").as_bytes(), LONGEST_REQUEST).ok();
        }

        #[test]
        fn what_is_sent_is_received(number: u128, owner: u32, address: Option<u32>) {
            let machine = MachineId(uuid::Uuid::from_u128(number));
            let request = AttachRequest {
                guest_address: address.map(Ipv4Addr::from),
                mac: Some(MacAddress::of(machine)),
                ..AttachRequest::new(machine, NetworkPolicy::Isolated, owner)
            };
            let line = serde_json::to_string(&Request::Attach(Attach::from(&request))).unwrap() + "\n";
            let Some(Request::Attach(received)) = read(line.as_bytes(), LONGEST_REQUEST).unwrap() else { panic!() };
            prop_assert_eq!(AttachRequest::from(received), request);
        }
    }
}
