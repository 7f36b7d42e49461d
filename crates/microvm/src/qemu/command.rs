//! The command line of one QEMU.

use std::path::{Path, PathBuf};

use super::QemuChannels;
use crate::{Acceleration, Disk, DiskFormat, MachineSpec, RateLimit, ports};

/// How large the part of the console is that is kept.
pub(super) const CONSOLE_BYTES: usize = 64 * 1024;

/// The name of the console, to QEMU.
pub(super) const CONSOLE: &str = "console";

/// The way in which the machine begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Boots its kernel.
    Boot,
    /// Boots it, and goes with whoever waits for it.
    Probe,
    /// Waits for what was saved.
    Incoming,
}

/// Returns the path of the file that keeps the id of QEMU's process.
pub(super) fn pid_file(dir: &Path) -> PathBuf {
    dir.join("vmm.pid")
}

/// The socket for commands.
pub(super) fn control_socket(dir: &Path) -> PathBuf {
    dir.join("qmp.sock")
}

/// The socket for questions, so that they need not wait for commands.
pub(super) fn question_socket(dir: &Path) -> PathBuf {
    dir.join("qmp-state.sock")
}

/// The arguments after the program's name.
pub(super) fn arguments(
    spec: &MachineSpec,
    acceleration: Acceleration,
    start: Start,
    channels: QemuChannels,
) -> Vec<String> {
    let mut line = Line(Vec::new());
    let (accelerator, processor) = match acceleration {
        Acceleration::Kvm => ("kvm", "host"),
        Acceleration::Emulated => ("tcg,thread=multi", "max"),
    };
    line.words(&["-nodefaults", "-no-user-config", "-display", "none"]);
    // No new programs, no other rights, nothing that a monitor has no need of once it runs.
    line.words(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    line.words(&["-M", "microvm,pcie=on,acpi=on,rtc=on,memory-backend=memory"]);
    line.words(&["-object", &format!("memory-backend-memfd,id=memory,size={}M,share=on", spec.memory_mib)]);
    line.words(&["-m", &format!("{}M", spec.memory_mib), "-smp", &spec.vcpus.to_string()]);
    line.words(&["-accel", accelerator, "-cpu", processor]);
    // An end of the guest's own leaves the process, to be asked why.
    line.words(&["-action", "reboot=shutdown,shutdown=pause"]);
    line.words(&["-kernel", &text(&spec.kernel.image)]);
    if let Some(initramfs) = &spec.kernel.initramfs {
        line.words(&["-initrd", &text(initramfs)]);
    }
    line.words(&["-append", &kernel_command_line(spec, acceleration)]);
    line.words(&["-chardev", &format!("ringbuf,id={CONSOLE},size={CONSOLE_BYTES}")]);
    line.words(&["-serial", &format!("chardev:{CONSOLE}")]);
    for (name, path) in [("qmp", control_socket(&spec.dir)), ("questions", question_socket(&spec.dir))] {
        line.socket(name, &path);
        line.words(&["-mon", &format!("chardev={name},mode=control")]);
    }
    line.disk("root", &spec.root);
    if let Some(data) = &spec.data {
        line.disk("data", data);
    }
    match channels {
        // What only shows that it boots is not spoken to, and nobody runs a device for it.
        _ if start == Start::Probe => {}
        QemuChannels::Serial => line.serial_ports(&spec.dir),
        QemuChannels::Vsock => line.vsock(&spec.dir),
    }
    line.words(&["-device", "virtio-rng-pci"]);
    if let Some(network) = &spec.network {
        let name = escaped(&network.name);
        line.words(&["-netdev", &format!("tap,id=network,ifname={name},script=no,downscript=no")]);
        line.words(&["-device", &format!("virtio-net-pci,netdev=network,mac={},romfile=", network.mac)]);
    }
    if start == Start::Incoming {
        line.words(&["-incoming", "defer"]);
    }
    line.0
}

fn kernel_command_line(spec: &MachineSpec, acceleration: Acceleration) -> String {
    let mut words = vec![
        "console=ttyS0".to_owned(),
        "quiet".to_owned(),
        // A panic is the machine's end, at once.
        "panic=-1".to_owned(),
        "reboot=t".to_owned(),
        // Nothing that a machine without a keyboard, a disk controller or a graphics adapter should wait for.
        "i8042.noaux".to_owned(),
        "i8042.nokbd".to_owned(),
        "random.trust_cpu=on".to_owned(),
    ];
    #[cfg(target_arch = "x86_64")]
    if acceleration == Acceleration::Emulated {
        // And nothing to check it against either.
        words.push("tsc=reliable".to_owned());
        words.push(format!("tsc_early_khz={}", super::clock::kilohertz()));
    }
    words.extend(spec.guest_words());
    words.extend(spec.kernel.command_line.iter().cloned());
    words.join(" ")
}

/// A path in an option, where a comma would begin the next field.
fn escaped(text: &str) -> String {
    text.replace(',', ",,")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

struct Line(Vec<String>);

impl Line {
    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|word| (*word).to_owned()));
    }

    fn socket(&mut self, name: &str, path: &Path) {
        self.words(&["-chardev", &format!("socket,id={name},path={},server=on,wait=off", escaped(&text(path)))]);
    }

    fn serial_ports(&mut self, dir: &Path) {
        self.words(&["-device", &format!("virtio-serial-pci,id=serial,max_ports={}", ports::PORTS + 1)]);
        for number in 0..ports::PORTS {
            self.socket(&format!("port{number}"), &ports::socket(dir, number));
            let name = format!("{}{number}", emergent_guest_proto::machine::PORT_PREFIX);
            self.words(&["-device", &format!("virtserialport,bus=serial.0,chardev=port{number},name={name}")]);
        }
    }

    fn vsock(&mut self, dir: &Path) {
        let device = escaped(&text(&dir.join("vhost-vsock.sock")));
        self.words(&["-chardev", &format!("socket,id=vsock,path={device}")]);
        self.words(&["-device", "vhost-user-vsock-pci,chardev=vsock"]);
    }

    fn disk(&mut self, name: &str, disk: &Disk) {
        let format = match disk.format {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        };
        let read_only = if disk.read_only { "on" } else { "off" };
        let path = escaped(&text(&disk.path));
        let limits = limit("bps", disk.bandwidth) + &limit("iops", disk.operations);
        self.words(&[
            "-drive",
            // A guest's flush waits until its writes are on the host's disk.
            &format!(
                "id={name},if=none,format={format},file={path},readonly={read_only},cache=writeback,discard=unmap{limits}"
            ),
            "-device",
            &format!("virtio-blk-pci,drive={name},serial={name}"),
        ]);
    }
}

fn limit(unit: &str, limit: Option<RateLimit>) -> String {
    let Some(RateLimit { per_second, burst }) = limit else { return String::new() };
    let most = per_second.saturating_add(burst);
    format!(",throttling.{unit}-total={per_second},throttling.{unit}-total-max={most}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kernel, MachineId, TapInterface};

    fn spec() -> MachineSpec {
        MachineSpec {
            id: MachineId::generate(),
            dir: "/m".into(),
            kernel: Kernel { image: "/k".into(), initramfs: Some("/i".into()), command_line: Vec::new() },
            root: Disk::raw("/m/a,b"),
            data: None,
            memory_mib: 256,
            vcpus: 1,
            network: None,
            processes: None,
        }
    }

    fn after<'a>(arguments: &'a [String], option: &str) -> Vec<&'a str> {
        let places = arguments.iter().enumerate().filter(|(_, word)| *word == option);
        places.filter_map(|(place, _)| arguments.get(place + 1)).map(String::as_str).collect()
    }

    #[test]
    fn a_path_cannot_bring_options_of_its_own() {
        let arguments = arguments(&spec(), Acceleration::Emulated, Start::Boot, QemuChannels::Serial);
        let drives = after(&arguments, "-drive");
        assert_eq!(drives, ["id=root,if=none,format=raw,file=/m/a,,b,readonly=off,cache=writeback,discard=unmap"]);
    }

    #[test]
    fn every_machine_is_confined_and_has_nothing_that_it_was_not_given() {
        for start in [Start::Boot, Start::Probe, Start::Incoming] {
            let arguments = arguments(&spec(), Acceleration::Kvm, start, QemuChannels::Serial);
            assert!(after(&arguments, "-sandbox")[0].starts_with("on,"));
            assert!(arguments.contains(&"-nodefaults".to_owned()));
            assert!(after(&arguments, "-netdev").is_empty());
            assert_eq!(arguments.contains(&"-incoming".to_owned()), start == Start::Incoming);
        }
    }

    #[test]
    fn limits_and_the_network_are_passed_on() {
        let mut spec = spec();
        spec.root.bandwidth = Some(RateLimit { per_second: 1000, burst: 500 });
        spec.network = Some(TapInterface {
            name: "em0".into(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            address: "10.0.0.2".parse().unwrap(),
            prefix: 30,
            gateway: "10.0.0.1".parse().unwrap(),
            name_servers: vec!["192.0.2.1".parse().unwrap()],
            receive: None,
            send: None,
        });
        let arguments = arguments(&spec, Acceleration::Kvm, Start::Boot, QemuChannels::Serial);
        assert!(after(&arguments, "-drive")[0].ends_with(",throttling.bps-total=1000,throttling.bps-total-max=1500"));
        let append = after(&arguments, "-append")[0];
        assert!(append.contains("emergent.address=10.0.0.2/30 emergent.gateway=10.0.0.1"), "{append}");
        assert!(append.contains("emergent.name-server=192.0.2.1"), "{append}");
    }
}
