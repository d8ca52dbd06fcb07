//! Machines that boot from the network, by QEMU's own firmware: `skep pxe serve` beside
//! another DHCP server (dnsmasq) and as the only one.

use anyhow::{Result, ensure};
use serde_json::Value;
use skep_qemu::{
    Artifacts,
    command::output,
    lan::Lan,
    node::TempFolder,
    seconds,
    swtpm::{Interface, Swtpm},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const MAC: &str = "52:54:00:12:34:56";
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// OVMF tries PXE first; where it must not, it is told so.
const HTTP_ONLY: [&str; 6] = [
    "-fw_cfg",
    "name=opt/org.tianocore/IPv4PXESupport,string=n",
    "-fw_cfg",
    "name=opt/org.tianocore/IPv6PXESupport,string=n",
    "-fw_cfg",
    "name=opt/org.tianocore/IPv6Support,string=n",
];

/// A network with a boot server and room for what the run leaves.
struct Scene {
    lan: Lan,
    logs: PathBuf,
    folder: TempFolder,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let logs = Artifacts::new().logs().join(name);
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir_all(&logs)?;
        Ok(Self {
            lan: Lan::new()?,
            logs,
            folder: TempFolder::new()?,
        })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }

    /// Starts the boot server, which knows one machine by this mark: the kitchen's.
    fn serve(&mut self, mark: &str, words: &[&str]) -> Result<()> {
        self.serve_as("kitchen", mark, words)
    }

    /// The same with another name for the machine.
    fn serve_as(&mut self, name: &str, mark: &str, words: &[&str]) -> Result<()> {
        let artifacts = Artifacts::new();
        let machines = self.folder.path().join("machines.toml");
        let text = format!(
            "[[machine]]\n{mark}\nname = \"{name}\"\n\
             network.static = {{ address = \"10.9.0.50\", prefix = 24 }}\n"
        );
        fs::write(&machines, text)?;
        let mut command = self.lan.command(artifacts.require(artifacts.cli())?);
        command.args(["pxe", "serve", "--interface", "br0", "--machines"]);
        command.arg(&machines).arg("--system").arg(artifacts.out());
        command.args(words);
        let log = self.log("server.log");
        self.lan.spawn(&mut command, &log)?;
        self.lan.wait_log(&log, "serving br0", seconds(20))
    }

    /// Starts a DHCP server that knows nothing of booting; the server that it names for
    /// files is none.
    fn dnsmasq(&mut self) -> Result<()> {
        let mut command = self.lan.command("dnsmasq");
        let leases = self.folder.path().join("leases");
        command.args(["--keep-in-foreground", "--log-facility=-", "--port=0"]);
        // The file would be the one of all who run at this time.
        command.arg("--pid-file");
        command.args(["--conf-file=/dev/null", "--user=root", "--interface=br0"]);
        command.args(["--bind-interfaces", "--dhcp-range=10.9.0.160,10.9.0.199"]);
        command.arg("--dhcp-boot=,,10.9.0.250");
        command.arg(format!("--dhcp-leasefile={}", leases.display()));
        let log = self.log("dnsmasq.log");
        self.lan.spawn(&mut command, &log)?;
        self.lan.wait_log(&log, "DHCP, IP range", seconds(20))
    }

    /// Powers a machine on that has nothing but its network to boot from.
    fn machine(&mut self, firmware: &[&str], nic: &str) -> Result<()> {
        self.lan.tap("t0")?;
        let mut command = self.lan.command("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args([
            "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512M",
        ]);
        command.args(["-device", "VGA", "-netdev"]);
        command.arg("tap,id=net0,ifname=t0,script=no,downscript=no");
        command.arg("-device");
        command.arg(format!("{nic},netdev=net0,mac={MAC},bootindex=0"));
        command.arg("-serial");
        command.arg(format!("file:{}", self.log("serial.log").display()));
        command.args(firmware);
        let log = self.log("qemu.log");
        self.lan.spawn(&mut command, &log)
    }

    /// Arguments for UEFI with a variable store of this run.
    fn uefi(&self) -> Result<Vec<String>> {
        let vars = self.folder.path().join("vars");
        fs::copy(OVMF_VARS, &vars)?;
        let drive = |path: &Path, more: &str| {
            [
                "-drive".into(),
                format!("if=pflash,format=raw,file={}{more}", path.display()),
            ]
        };
        let parts = [
            drive(Path::new(OVMF_CODE), ",readonly=on"),
            drive(&vars, ""),
        ];
        Ok(parts.concat())
    }

    /// Who the node is, by its own command line.
    fn identity(&self, address: &str) -> Result<Value> {
        let mut skep = self.lan.command(Artifacts::new().cli());
        skep.args(["identity", "--json", "--node"]);
        let said = output(skep.arg(format!("http://{address}:8080")))?;
        println!("{said}");
        Ok(serde_json::from_str(&said)?)
    }

    /// Waits for nginx's page from a node of this address, and for the node's name.
    fn expect_node(&self, address: &str, name: &str) -> Result<()> {
        let page = format!("http://{address}:8081/");
        let taken = self
            .lan
            .wait_page(&page, "Welcome to nginx!", seconds(240))?;
        println!(
            "nginx's page from {address} after {:.1} s",
            taken.as_secs_f32()
        );
        let node = format!("http://{address}:8080/api/v1/node");
        let expected = format!("\"name\":\"{name}\"");
        self.lan.wait_page(&node, &expected, seconds(20))?;
        Ok(())
    }
}

fn words(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// UEFI asks at the boot port and loads by TFTP; the machine gets its own configuration
/// because of its hardware address.
#[test]
fn uefi_loads_by_tftp_beside_another_server() -> Result<()> {
    let mut scene = Scene::new("pxe-uefi")?;
    scene.dnsmasq()?;
    scene.serve(&format!("mac = \"{MAC}\""), &[])?;
    let uefi = scene.uefi()?;
    scene.machine(&words(&uefi), "virtio-net-pci,romfile=")?;
    scene.expect_node("10.9.0.50", "kitchen")
}

/// UEFI whose network device brings iPXE: both the loader and the release come over HTTP. The
/// loader tells the TPM of them, and the node has the same key when the same owner serves it
/// another release.
#[test]
fn uefi_by_ipxe_keeps_its_key_over_releases() -> Result<()> {
    let mut swtpm = Swtpm::new("pxe-key")?;
    let mut boot = |name: &str, owner: bool| -> Result<Value> {
        let mut scene = Scene::new(&format!("pxe-ipxe-{name}"))?;
        let artifacts = Artifacts::new();
        let key = artifacts.owner_key().display().to_string();
        let mut words_of_server = vec!["--dhcp", "10.9.0.100-10.9.0.110"];
        if owner {
            words_of_server.extend(["--key", &key]);
        }
        let mark = format!("mac = \"{MAC}\"");
        scene.serve_as(name, &mark, &words_of_server)?;
        let mut firmware = scene.uefi()?;
        for (option, value) in swtpm.arguments(Interface::Crb)? {
            firmware.extend([option.to_string(), value]);
        }
        scene.machine(&words(&firmware), "e1000e")?;
        scene.expect_node("10.9.0.50", name)?;
        scene.identity("10.9.0.50")
    };
    let first = boot("kitchen", true)?;
    ensure!(first["kept"] == "owner", "{first}");
    let another = boot("cellar", true)?;
    ensure!(
        another["kept"] == "owner" && another["key"] == first["key"],
        "another release, another key: {another}"
    );
    let stranger = boot("attic", false)?;
    ensure!(
        stranger["key"] != first["key"] && stranger["problem"].is_string(),
        "what somebody else signed got the key: {stranger}"
    );
    Ok(())
}

/// A BIOS with iPXE starts from the image over HTTP. Serial numbers are known of it too;
/// the boot server gives the addresses.
#[test]
fn bios_starts_by_ipxe_from_the_only_server() -> Result<()> {
    let mut scene = Scene::new("pxe-bios")?;
    scene.serve("serial = \"S 1\"", &["--dhcp", "10.9.0.100-10.9.0.110"])?;
    scene.machine(&["-smbios", "type=1,serial=S 1"], "e1000")?;
    scene.expect_node("10.9.0.50", "kitchen")
}

/// UEFI's HTTP boot, the loader's own too. This machine is none of those that are
/// named: it has the address and the name that everybody gets.
#[test]
fn uefi_loads_by_http_as_a_stranger() -> Result<()> {
    let mut scene = Scene::new("pxe-http")?;
    scene.serve(
        "mac = \"52:54:00:00:00:01\"",
        &["--dhcp", "10.9.0.100-10.9.0.110"],
    )?;
    let uefi = scene.uefi()?;
    let mut firmware = words(&uefi);
    firmware.extend(HTTP_ONLY);
    scene.machine(&firmware, "virtio-net-pci,romfile=")?;
    scene.expect_node("10.9.0.100", "node")
}

/// Without the rights, or with a wrong file, it says what to do.
#[test]
fn what_is_wrong_is_told_in_a_sentence() -> Result<()> {
    let artifacts = Artifacts::new();
    let folder = TempFolder::new()?;
    let machines = folder.path().join("machines.toml");
    fs::write(&machines, "[[machine]]\nname = \"kitchen\"\n")?;
    let mut command = Command::new(artifacts.require(artifacts.cli())?);
    command.args(["pxe", "serve", "--interface", "lo", "--machines"]);
    command.arg(&machines).arg("--system").arg(artifacts.out());
    let error = output(&mut command).expect_err("a wrong file is refused");
    let told = format!("{error:#}");
    ensure!(told.contains("neither mac nor serial"), "{told}");
    Ok(())
}
